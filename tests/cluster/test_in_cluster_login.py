"""The controller as a container has it: a service account's files, an address, no DNS, nobody in /etc/passwd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.control_plane import ControlPlane
from cluster.controller_process import OWN_NAMESPACE, PORT
from cluster.credentials import CONTROLLER
from cluster.fleet import Fleet
from cluster.installation import until
from cluster.test_api_server_faults import with_pods

pytestmark = pytest.mark.cluster

OF_A_PERSON = {"KUBECONFIG", "HOME", "USER", "LOGNAME", "LNAME", "USERNAME"}
"""What a container is started without."""
AS_A_KUBELET_MOUNTS = """
mount -t tmpfs tmpfs /var/run
mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
mount --bind "$1" /var/run/secrets/kubernetes.io/serviceaccount
mount --bind /dev/null /etc/passwd
echo "passwd: files" >/var/run/nsswitch.conf
mount --bind /var/run/nsswitch.conf /etc/nsswitch.conf
shift
exec "$@"
"""


@pytest.fixture
def account(control_plane: ControlPlane, tmp_path: Path) -> Path:
    """The three files of the controller's service account."""
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(CONTROLLER.token)
    (folder / "namespace").write_text(OWN_NAMESPACE)
    shutil.copy(control_plane.certificate, folder / "ca.crt")
    return folder


@pytest.fixture
def controller(
    control_plane: ControlPlane, account: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """It, in a mount namespace of its own, and its log."""
    own = {name: value for name, value in os.environ.items() if name not in OF_A_PERSON}
    own |= {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443", "POD_NAMESPACE": OWN_NAMESPACE}
    program = [sys.executable, "-m", "membudget_controller", "--host=127.0.0.1"]
    contained = [
        "unshare",
        "--mount",
        "--propagation=private",
        "bash",
        "-ec",
        AS_A_KUBELET_MOUNTS,
        "bash",
        str(account),
    ]
    log = tmp_path / "contained.log"
    with log.open("wb") as written:
        command = control_plane.inside([*contained, *program])
        started = subprocess.Popen(command, env=own, stdout=written, stderr=subprocess.STDOUT)
    yield started, log
    started.kill()
    started.wait()


def test_in_a_container_the_controller_needs_neither_names_nor_a_user(
    fleet: Fleet, controller: tuple[subprocess.Popen[bytes], Path]
) -> None:
    """R-T06, R-P08: lists and watches both find the API server by the address that the kubelet gives."""
    process, log = controller
    with_pods(fleet, 1)
    until(lambda: _is_ready(fleet, process, log))
    fleet.wait_until_converged()
    fleet.apply("retrieval", budget={"total": "190Mi"})  # seen by the watch, which logs in apart from the lists
    fleet.wait_until_converged()
    text = log.read_text(errors="replace")
    assert [] == [word for word in ("Traceback", "kubernetes.default", "getpw") if word in text], text[-2000:]


def _is_ready(fleet: Fleet, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text(errors="replace")[-2000:]
    try:
        with fleet.control_plane.network.connect("127.0.0.1", PORT, 5.0) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.makefile("rb").readline()
    except OSError:
        return False
