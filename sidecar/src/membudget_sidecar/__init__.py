"""The sidecar: reads the kernel's figures of the engine's process, decides, has the engine act, verifies.

From the kernel to a figure: `kernel_file` -> `process`, `cgroup` -> `sample` -> `history`.
From a figure to an effect: `watch` -> `ladder` -> `loop` -> `actions` -> `verification`.
From a policy to budgets: `policy_file` -> `plan_keeper` -> `plan_follower` -> `actions`.
It never reads an index file or a cache; what the engine owns it learns from the engine.
"""
