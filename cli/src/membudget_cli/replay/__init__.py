"""Trying a policy on what a sidecar recorded.

`recording_file` reads, `effects` learns what actions free, `simulation` replays, `comparison` holds a prediction
against what was done, `command` is what a person types.
"""
