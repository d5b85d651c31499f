"""Everything the chart can render, shown to a real API server: strict dry runs, Pod Security, schemas of its own kinds.

The definitions of PodMonitor and PrometheusRule are the Prometheus operator's. A control plane of its own, so that no
other test finds these kinds.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charts.rendering import FILES, NAMESPACE, VALUE_SETS, Chart, Manifests, Object
from charts.tools import Tools, find_tools
from cluster.control_plane import ControlPlane
from cluster.openapi_schemas import LOCATION, write_schemas

pytestmark = pytest.mark.cluster

RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
DRY_RUN = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")


@pytest.fixture(scope="module")
def tools() -> Tools:
    """Helm and kubeconform."""
    return find_tools()


@pytest.fixture(scope="module")
def rendered(tools: Tools) -> dict[str, Manifests]:
    """Each set of values."""
    chart = Chart(tools.helm)
    return {name: chart.render(values) for name, values in VALUE_SETS.items()}


@pytest.fixture(scope="module")
def plane(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """With all kinds, and the namespaces that the values name, under Pod Security `restricted`."""
    with ControlPlane(tmp_path_factory.mktemp("manifests")) as running:
        for name in (NAMESPACE, "search", "2nd-team"):
            running.api.send("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": RESTRICTED}})
        (own,) = FILES.glob("memorypolicies.*.yaml")
        for definition in (own, *tools.operator_definitions):
            running.kubectl("apply", "--server-side", "-f", str(definition))
        running.kubectl("wait", "--for=condition=Established", "crd", "--all")
        yield running


def text(objects: list[Object]) -> str:
    """As one document."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def pods(objects: list[Object]) -> list[Object]:
    """Those that deployments and stateful sets would make."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": found["metadata"]["name"], "namespace": NAMESPACE},
            "spec": _with_claims(found["spec"]),
        }
        for found in objects
        if found["kind"] in {"Deployment", "StatefulSet"}
    ]


def _with_claims(workload: dict[str, Any]) -> dict[str, Any]:
    """A pod's spec with the volumes that a stateful set claims for it."""
    spec = workload["template"]["spec"]
    claims = [template["metadata"]["name"] for template in workload.get("volumeClaimTemplates", [])]
    claimed = [{"name": name, "persistentVolumeClaim": {"claimName": f"{name}-0"}} for name in claims]
    return {**spec, "volumes": [*spec["volumes"], *claimed]}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_an_api_server_takes_every_object_without_a_word(
    plane: ControlPlane, rendered: dict[str, Manifests], name: str
) -> None:
    """R-T05: no unknown or double field, no wrong value, no warning; it shows each as it would keep it."""
    done = plane.kubectl(*DRY_RUN, "-o", "name", stdin=text(rendered[name].objects))
    assert (len(rendered[name].objects), "") == (len(done.stdout.split()), done.stderr)


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_admitted_under_the_restricted_standard(
    plane: ControlPlane, rendered: dict[str, Manifests], name: str
) -> None:
    """R-T06: by the admission that a cluster has, not by our reading of its rules."""
    made = pods(rendered[name].objects)
    assert made
    for pod in made:
        plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_the_checks_can_fail(plane: ControlPlane, rendered: dict[str, Manifests]) -> None:
    """A misspelled field is refused by strict validation, a root user and a kept capability by Pod Security."""
    objects = copy.deepcopy(rendered["example"].objects)
    (deployment, *_) = [found for found in objects if found["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    spec["terminationGracePeriod"] = 10
    misspelled = plane.kubectl(*DRY_RUN, stdin=text([deployment]), check=False)
    assert (1, True) == (misspelled.returncode, "terminationGracePeriod" in misspelled.stderr)
    del spec["terminationGracePeriod"]
    del spec["securityContext"]["runAsNonRoot"]
    spec["containers"][0]["securityContext"]["capabilities"]["drop"] = []
    (pod,) = pods([deployment])
    refused = plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod), check=False)
    told = ("violates PodSecurity", "runAsNonRoot", "capabilities.drop")
    assert (1, []) == (refused.returncode, [word for word in told if word not in refused.stderr])


def test_kubeconform_finds_every_kind_and_nothing_wrong(
    plane: ControlPlane, tools: Tools, rendered: dict[str, Manifests], tmp_path: Path
) -> None:
    """R-T05: strictly, by the schemas of this API server, for every set of values; and it can fail."""
    everything = [found for each in rendered.values() for found in each.objects]
    assert 10 < write_schemas(plane.api, (found["apiVersion"] for found in everything), tmp_path)
    assert ({"statusValid"}, len(everything)) == _kubeconform(tools, tmp_path, everything)
    wrong = copy.deepcopy(rendered["defaults"].one("Deployment", "membudget-controller"))
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePullPolicies"] = "Always"
    assert ({"statusInvalid"}, 1) == _kubeconform(tools, tmp_path, [wrong])


def _kubeconform(tools: Tools, folder: Path, objects: list[Object]) -> tuple[set[str], int]:
    """What it says of them, and of how many."""
    command = [str(tools.kubeconform), "-strict", "-output=json", "-verbose", f"-schema-location={folder}/{LOCATION}"]
    documents = "\n---\n".join(json.dumps(found) for found in objects)
    done = subprocess.run(command, input=documents, capture_output=True, text=True, check=False)
    said: list[dict[str, Any]] = json.loads(done.stdout)["resources"]
    return {each["status"] for each in said}, len(said)
