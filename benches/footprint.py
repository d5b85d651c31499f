"""What engine and sidecar cost when nothing happens: resident memory and processor time, read from outside.

No peer: the figures stand beside the goals of 75 MB for the engine and 30 MB for the sidecar.
"""

from __future__ import annotations

import time
from pathlib import Path

from measuring import MIB, resident_bytes, table
from membudget_cli.demo.stack import build_index, running_stack, temporary_folders

IDLE_SECONDS = 20

POLICY = """\
apiVersion: membudget.dev/v1alpha1
kind: MemoryPolicy
metadata: {name: idle}
spec: {budget: {total: 150Mi, signal: ResidentSetSize}}
"""


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    with temporary_folders() as folders:
        build_index(folders, ["stdlib"])
        folders.policy.write_text(POLICY)
        with running_stack(folders) as stack:
            processes = {"engine": stack.engine.pid, "sidecar": stack.sidecar.pid}
            time.sleep(3)
            before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
            time.sleep(IDLE_SECONDS)
            rows = [
                (name, resident_bytes(pid) / MIB, 100 * (_cpu_seconds(pid) - before[name]) / IDLE_SECONDS)
                for name, pid in processes.items()
            ]
    table(f"Idle for {IDLE_SECONDS} s, corpus open", ("process", "resident MiB", "% of a core"), rows)
