"""The controller: watches MemoryPolicy objects and decides which plan belongs to which pod.

Covers (once built): targets, compile, signed orders, acknowledgements, conditions. Does not measure memory:
it asks sidecars for reports. Neighbours: `membudget_contract` for plans and orders, `membudget_sidecar` for
the receiving side. This release holds the member and its place in the layers, no behaviour.
"""
