"""`membudget demo`: an engine that stays inside its budget, shown without a cluster.

`stack` starts and stops the programs a pod runs, `trace` makes the queries, `agents` ask them, a witness reads the
engine's memory from the kernel by code of its own, `view` shows it live, `summary` is the table at the end.
"""
