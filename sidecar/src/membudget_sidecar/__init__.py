"""The sidecar: reads the kernel's figures of the engine's process, decides, has the engine act, verifies.

From the kernel to a figure: `kernel_file` -> `process`, `cgroup` -> `sample` -> `history`.
From a figure to an effect: `watch` -> `ladder` -> `loop` -> `actions` -> `verification`.
From a policy to budgets: `policy_file` -> `plan_keeper` -> `plan_follower` -> `actions`; under a controller
`network_api` -> `order_gate` (`order_keys`) -> `order_keeper` -> `plan_keeper`.
It never reads an index file or a cache; what the engine owns it learns from the engine.
"""
