"""The programs that are measured, each started in a process of its own; none knows what is read of it.

Each says a line and waits for one, so that whoever reads its memory does so while it stands still.
"""
