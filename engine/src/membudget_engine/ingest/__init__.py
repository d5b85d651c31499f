"""Turns sources outside the engine into chunks. It holds no bytes longer than one file; stores/ and index/ do that."""
