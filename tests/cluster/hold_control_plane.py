"""Usage: hold_control_plane.py FOLDER. Starts a control plane, says as a line of JSON what it is made of, and keeps it.

It never ends by itself: the test kills it, to see what it leaves behind.
"""

import json
import signal
import sys
from pathlib import Path

from cluster.control_plane import ControlPlane

if __name__ == "__main__":
    with ControlPlane(Path(sys.argv[1])) as control_plane:
        told = {"namespace": control_plane.network.name, "pids": control_plane.process_ids()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        signal.pause()
