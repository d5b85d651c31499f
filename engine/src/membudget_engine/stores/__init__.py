"""Chunks on disk: what search returns to a person. Vectors are in index/, what is held in memory is in caches/."""
