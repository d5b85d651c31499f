"""`membudget profile`: what membudget costs and saves, measured here, beside what one writes without it.

Five parts, each from processes of their own whose memory is read from outside: `stores`, `mapped_index`, `caches` and
`workload` start the programs of `measured` and read the kernel's figures of them (`outside`); `results` is what they
measured, `verdicts` what follows from it, `report` and `plots` the documents. `command` is the order of it all.
"""
