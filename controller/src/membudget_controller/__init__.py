"""The controller: watches MemoryPolicy objects and decides which plan belongs to which pod.

Covers, in the order of the flow: `handlers` and `listing` see the cluster, `objects` and `observed` hold what matters
of it, `watch_health` says whether a watch still lives, `targets` which plan belongs to which pod, `reconcile` what is
to be done, `dispatch` does it with `orders`, `transport`, `pushes` and `fan_out`, `progress` remembers what came of it,
`pod_facts`, `conditions` and `status_writer` tell, as often as `write_budget` lets them; `recommendations` advises.
`keys` and `key_publication` make orders believable. Does not measure memory: it asks sidecars for reports. Neighbours:
`membudget_contract` for plans and orders, `membudget_sidecar` for the receiving side.
"""
