"""The two processes that footprint.py measures: a small runtime, and a sidecar that has taken its samples.

Not a benchmark itself. `runtime FOLDER` serves a control socket there; `sidecar FOLDER PORT SAMPLES` takes that many
full looks at it, with a clock that runs ahead from one to the next, and then serves as `membudget-sidecar` does.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from membudget_sidecar.without_openssl import leave_openssl_out


def _run_runtime(folder: Path) -> None:
    from membudget_runtime.memory_runtime import MemoryRuntime

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    runtime = MemoryRuntime(folder / "engine-state", {})
    runtime.serve(folder / "engine.sock")
    signal.sigwait({signal.SIGTERM})
    runtime.close()


def _run_sidecar(folder: Path, port: int, samples: int) -> None:
    leave_openssl_out()
    from membudget_sidecar.servers import make_loop, serve_loop
    from membudget_sidecar.settings import SidecarSettings

    settings = SidecarSettings(folder, folder / "state", folder / "policy.yaml", port=port)
    loop = make_loop(settings)
    seconds = loop.keeper.effective.sampling_interval_seconds
    # The clock ends at the present, so that the loop goes on from there at its own pace.
    first = time.monotonic() - samples * seconds
    for number in range(samples):
        loop.tick(first + number * seconds)
    serve_loop(settings, loop)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["runtime", folder]:
            _run_runtime(Path(folder))
        case ["sidecar", folder, port, samples]:
            _run_sidecar(Path(folder), int(port), int(samples))
        case _:
            sys.exit("worked_sidecar.py runtime FOLDER | sidecar FOLDER PORT SAMPLES")
