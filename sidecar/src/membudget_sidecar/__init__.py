"""The sidecar: reads the kernel's figures of the engine's process, decides, has the engine act, verifies.

From the kernel to a figure: `kernel_file` -> `process`, `cgroup` -> `sample` -> `history`. It never reads an
index file or a cache; what the engine owns it learns from the engine.
"""
