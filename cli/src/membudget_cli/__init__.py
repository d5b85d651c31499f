"""What a person types: `membudget demo`, `status`, `explain`, `act`, `replay`.

Covers: commands, terminal views. Does not hold logic of its own: it asks the sidecar, or starts the same programs
a pod runs. Nothing imports it.
"""
