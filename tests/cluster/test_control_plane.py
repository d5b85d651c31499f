"""The control plane that other tests stand on does what it says, and leaves nothing behind."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import pytest

from cluster.api_requests import USER_AGENT
from cluster.audit_log import Write
from cluster.control_plane import ControlPlane
from cluster.credentials import ADMIN, CONTROLLER, TENANT_A
from cluster.network_namespace import network_namespace

pytestmark = pytest.mark.cluster

SECONDS = 30.0
POD_IP = "10.244.7.9"
PORT = 9465
NAMESPACES = Path("/run/netns")
CONFIG_MAP = "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: kept, namespace: {}}}, data: {{key: value}}}}"
EVENT = """
apiVersion: v1
kind: Event
metadata: {{name: told, namespace: {0}}}
involvedObject: {{kind: ConfigMap, name: kept, namespace: {0}}}
"""
READER = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: reader, namespace: {0}}}
rules: [{{apiGroups: [""], resources: [configmaps], verbs: [get, list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: reader, namespace: {0}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}}
subjects: [{{kind: ServiceAccount, name: membudget-controller, namespace: membudget-system}}]
"""


def wait_until(condition: Callable[[], bool]) -> None:
    """Looks again until the condition holds; fails at the deadline."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS} s"
        time.sleep(0.01)


@contextlib.contextmanager
def running(
    argv: Sequence[str], env: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[bytes], None, None]:
    """The process while it is wanted, its output in a pipe; killed at the end."""
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def is_running(pid: int) -> bool:
    """Whether there is such a process, the dead that nobody has reaped not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def value_of(control_plane: ControlPlane, namespace: str) -> str:
    """What the API server has kept."""
    return control_plane.kubectl("get", "configmap", "kept", "-n", namespace, "-o", "jsonpath={.data.key}").stdout


def test_what_is_applied_can_be_read_back(control_plane: ControlPlane, namespace: str) -> None:
    """Through kubectl, as a person would."""
    control_plane.apply(CONFIG_MAP.format(namespace))
    assert value_of(control_plane, namespace) == "value"


def test_kubectl_and_the_api_server_say_which_version_they_are(control_plane: ControlPlane) -> None:
    """The pinned one, which plain `go build` does not stamp in."""
    told = json.loads(control_plane.kubectl("version", "-o", "json").stdout)
    assert told["clientVersion"]["gitVersion"] == told["serverVersion"]["gitVersion"] != ""


def test_rbac_holds_for_all_but_the_administrator(control_plane: ControlPlane, namespace: str) -> None:
    """A role bound to the controller's service account counts for its token, and for nobody else's."""
    control_plane.apply(CONFIG_MAP.format(namespace) + "\n---" + READER.format(namespace))
    get = ("get", "configmap", "kept", "-n", namespace)
    codes = [control_plane.kubectl(*get, check=False, user=user).returncode for user in (ADMIN, CONTROLLER, TENANT_A)]
    assert codes == [0, 0, 1]
    denied = control_plane.kubectl(*get, check=False, user=TENANT_A)
    assert 'User "tenant-a" cannot get resource "configmaps"' in denied.stderr


def test_a_killed_api_server_comes_back_with_its_data(control_plane: ControlPlane, namespace: str) -> None:
    """Killed with -9, nobody answers; started again it knows what it knew, and its log of writes goes on."""
    mark = control_plane.mark()
    control_plane.apply(CONFIG_MAP.format(namespace))
    control_plane.kill_api_server()
    assert control_plane.kubectl("get", "namespaces", check=False).returncode == 1
    control_plane.start_api_server()
    assert value_of(control_plane, namespace) == "value"
    control_plane.kubectl("delete", "configmap", "kept", "-n", namespace)
    assert ["create", "delete"] == [write.verb for write in control_plane.writes(mark)]


def test_a_frozen_api_server_answers_nothing_until_it_is_thawed(control_plane: ControlPlane, namespace: str) -> None:
    """Connections are accepted by the kernel, and then nothing."""
    get = ("get", "namespace", namespace, "--request-timeout=1s")
    control_plane.freeze_api_server()
    assert control_plane.kubectl(*get, check=False).returncode == 1
    control_plane.thaw_api_server()
    wait_until(lambda: control_plane.kubectl(*get, check=False).returncode == 0)


def test_writes_are_counted_one_by_one(control_plane: ControlPlane, namespace: str) -> None:
    """Who wrote what, in order; not reads, not the API server's own upkeep, not what changed nothing."""
    mark = control_plane.mark()
    control_plane.apply(CONFIG_MAP.format(namespace))
    control_plane.apply(CONFIG_MAP.format(namespace))  # finds it as it should be
    control_plane.kubectl("label", "configmap", "kept", "-n", namespace, "seen=yes")
    control_plane.kubectl("delete", "configmap", "kept", "-n", namespace)
    control_plane.kubectl("create", "configmap", "never", "-n", namespace, "--dry-run=server")
    control_plane.kubectl("auth", "can-i", "get", "pods", "-n", namespace)
    control_plane.create_pod(namespace, "engine-0", {}, POD_IP)
    written = control_plane.writes(mark)
    expected = [
        ("create", "configmaps", "kept", 201),
        ("patch", "configmaps", "kept", 200),
        ("delete", "configmaps", "kept", 200),
        ("create", "pods", "engine-0", 201),
        ("patch", "pods/status", "engine-0", 200),
    ]
    assert expected == [(write.verb, write.resource, write.name, write.status) for write in written]
    assert {("admin", namespace)} == {(write.user, write.namespace) for write in written}
    assert ["kubectl", "kubectl", "kubectl", USER_AGENT, USER_AGENT] == [w.user_agent.split("/")[0] for w in written]


def test_in_a_quiet_second_nothing_is_written(control_plane: ControlPlane) -> None:
    """A control plane that nobody uses counts 0, whatever it does for itself."""
    mark = control_plane.mark()
    time.sleep(1.0)  # what is measured, not waited for
    assert control_plane.writes(mark, events=True, refused=True) == []


def test_events_and_refused_writes_are_counted_when_asked_for(control_plane: ControlPlane, namespace: str) -> None:
    """Neither changes what is kept of anybody's objects."""
    mark = control_plane.mark()
    control_plane.apply(EVENT.format(namespace))
    control_plane.kubectl("create", "configmap", "mine", "-n", namespace, check=False, user=TENANT_A)
    assert control_plane.writes(mark) == []

    def told(*, events: bool, refused: bool) -> list[tuple[str, str, int | None]]:
        written = control_plane.writes(mark, events=events, refused=refused)
        return [(write.user, write.resource, write.status) for write in written]

    assert told(events=True, refused=False) == [("admin", "events", 201)]
    assert told(events=False, refused=True) == [("tenant-a", "configmaps", 403)]


def test_a_request_the_server_was_killed_in_is_counted_as_unknown(control_plane: ControlPlane, namespace: str) -> None:
    """It may have changed something, so it may not be missing."""
    log = control_plane.folder / "audit"
    mark = control_plane.mark()
    control_plane.apply(CONFIG_MAP.format(namespace))
    control_plane.writes(mark)  # the request's end is in the log now
    control_plane.kill_api_server()
    newest = max(log.glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-20])  # as a death in the middle of its last line leaves it
    control_plane.start_api_server()
    (unfinished,) = control_plane.writes(mark)
    assert Write("admin", "create", "configmaps", namespace, "", unfinished.user_agent, None) == unfinished


def test_a_pod_object_is_running_and_ready_at_its_address(control_plane: ControlPlane, namespace: str) -> None:
    """As kubectl shows it; deleted it is gone at once."""
    uid = control_plane.create_pod(namespace, "engine-0", {"app": "retriever"}, POD_IP, {"note": "kept"}, "1Gi")
    pod = json.loads(control_plane.kubectl("get", "pod", "engine-0", "-n", namespace, "-o", "json").stdout)
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    told = (pod["metadata"]["uid"], pod["metadata"]["labels"], pod["metadata"]["annotations"], limits)
    assert told == (uid, {"app": "retriever"}, {"note": "kept"}, {"memory": "1Gi"})
    row = control_plane.kubectl("get", "pod", "-n", namespace, "-o", "wide", "--no-headers").stdout.split()
    assert [row[0], row[1], row[2], row[5]] == ["engine-0", "2/2", "Running", POD_IP]
    control_plane.delete_pod(namespace, "engine-0")
    assert control_plane.kubectl("get", "pod", "-n", namespace, "-o", "name").stdout == ""


def test_a_removed_namespace_takes_its_objects_along(control_plane: ControlPlane) -> None:
    """Nothing of it is left to be seen by the watches of a later test."""
    control_plane.create_namespace("short-lived")
    control_plane.apply(CONFIG_MAP.format("short-lived"))
    control_plane.create_pod("short-lived", "engine-0", {}, POD_IP)
    control_plane.remove_namespace("short-lived")
    listed = control_plane.kubectl("get", "namespaces,pods,configmaps", "--all-namespaces", "-o", "name").stdout
    assert not {"namespace/short-lived", "pod/engine-0", "configmap/kept"} & set(listed.split())


def test_a_pod_address_is_reached_from_inside_only(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A server bound to it answers there and nowhere else, also where a proxy accepts whatever leaves the host."""
    (tmp_path / "witness").write_text("inside")
    serve = ["-m", "http.server", "--bind", POD_IP, "--directory", str(tmp_path), str(PORT)]

    def fetched(connect: Callable[[], socket.socket]) -> bool:
        try:
            with connect() as connection:
                connection.sendall(b"GET /witness HTTP/1.0\r\n\r\n")
                return connection.makefile("rb").read().endswith(b"inside")
        except OSError:
            return False

    with running(control_plane.inside([sys.executable, *serve])):
        wait_until(lambda: fetched(lambda: control_plane.network.connect(POD_IP, PORT, timeout=1.0)))
        assert not fetched(lambda: socket.create_connection((POD_IP, PORT), timeout=1.0))


def test_a_control_plane_leaves_nothing_behind(tmp_path: Path) -> None:
    """Processes, its own and those a test forgot, and the namespace; it runs beside the session's."""
    with contextlib.ExitStack() as afterwards:
        with ControlPlane(tmp_path) as short_lived:
            forgotten = afterwards.enter_context(running(short_lived.inside(["sleep", "600"])))
            pids = (*short_lived.process_ids(), forgotten.pid)
            namespace = NAMESPACES / short_lived.network.name
            wait_until(lambda: forgotten.pid in short_lived.network.members())
            assert [is_running(pid) for pid in pids] == [True, True, True]
            assert namespace.exists()
            assert short_lived.kubectl("get", "--raw", "/readyz").stdout == "ok"
        assert [is_running(pid) for pid in pids] == [False, False, False]
        assert not namespace.exists()


def test_what_a_killed_test_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """The kernel kills the servers along with it; the namespace goes when the next one is made."""
    holder = [sys.executable, str(Path(__file__).with_name("hold_control_plane.py")), str(tmp_path)]
    tests = str(Path(__file__).parents[1])
    with running(holder, env={"PYTHONPATH": tests}) as process:
        assert process.stdout is not None
        held = json.loads(process.stdout.readline())
    wait_until(lambda: not any(is_running(pid) for pid in held["pids"]))
    assert (NAMESPACES / held["namespace"]).exists()
    with network_namespace():
        assert not (NAMESPACES / held["namespace"]).exists()
