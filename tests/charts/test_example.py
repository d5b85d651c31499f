"""The example: a retrieval deployment that people copy, so each field of it has to be right."""

from __future__ import annotations

from typing import Any

import pytest

from charts import security
from charts.programs import read
from charts.rendering import NAMESPACE, VALUE_SETS, Chart
from membudget_contract.compile import compile_policy
from membudget_contract.policy import parse_policy

ON = {"example": {"enabled": True}}
KIND_KNOWN = "--api-versions=membudget.dev/v1alpha1/MemoryPolicy"


@pytest.fixture(scope="module")
def pod(chart: Chart) -> dict[str, Any]:
    """Its pod's spec, by defaults."""
    return chart.render(ON).one("Deployment", "retriever")["spec"]["template"]["spec"]


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    """By its name, wherever it stands."""
    (found,) = [found for found in security.containers(pod) if found["name"] == name]
    return found


def mounts(pod: dict[str, Any], name: str) -> dict[str, str]:
    """Volume -> where the container sees it."""
    return {mount["name"]: mount["mountPath"] for mount in container(pod, name)["volumeMounts"]}


@pytest.mark.parametrize("values", [ON, VALUE_SETS["everything"]], ids=["defaults", "everything"])
def test_its_pod_is_restricted(chart: Chart, values: Any) -> None:
    """R-T06: all three containers alike, and no token of the API server in it."""
    for one in chart.render(values).of("Deployment"):
        spec = one["spec"]["template"]["spec"]
        if one["metadata"]["name"] == "membudget-controller":
            continue
        contexts = [found["securityContext"] for found in security.containers(spec)]
        assert (security.POD, [security.CONTAINER] * 3) == (spec["securityContext"], contexts)
        assert ([], False) == (security.opened(spec), spec["automountServiceAccountToken"])


def test_the_sidecar_is_native_and_sees_the_engine(pod: dict[str, Any]) -> None:
    """R-T05: started before the engine and ended after it, after the index is built; one process namespace."""
    policies = [(found["name"], found.get("restartPolicy")) for found in pod["initContainers"]]
    assert [("build-index", None), ("membudget", "Always")] == policies
    assert (["engine"], True) == ([found["name"] for found in pod["containers"]], pod["shareProcessNamespace"])


def test_the_pod_is_opted_in_and_found(chart: Chart) -> None:
    """R-P01: the label of the opt-in, and one label for deployment, service, disruption budget and policy."""
    rendered = chart.render(ON)
    spec = rendered.one("Deployment", "retriever")["spec"]
    assert {"app": "retriever", "membudget.dev/managed": "true"} == spec["template"]["metadata"]["labels"]
    app = {"app": "retriever"}
    assert [app] * 4 == [
        spec["selector"]["matchLabels"],
        rendered.one("Service", "retriever")["spec"]["selector"],
        rendered.one("PodDisruptionBudget", "retriever")["spec"]["selector"]["matchLabels"],
        rendered.one("MemoryPolicy", "retriever")["spec"]["selector"]["matchLabels"],
    ]
    assert 1 == rendered.one("PodDisruptionBudget", "retriever")["spec"]["maxUnavailable"]
    assert [{"name": "http", "port": 8080, "targetPort": "http"}] == rendered.one("Service", "retriever")["spec"][
        "ports"
    ]


def test_its_arguments_are_taken_by_the_programs(pod: dict[str, Any]) -> None:
    """R-T05: parsed by the programs' own parsers; folders are those that are mounted."""
    build = read("engine", container(pod, "build-index")["args"])
    serve = read("engine", container(pod, "engine")["args"])
    sidecar = read("sidecar", container(pod, "membudget")["args"])
    built, engine, beside = (mounts(pod, name) for name in ("build-index", "engine", "membudget"))
    assert ("build", ["stdlib"], built["data"]) == (build.command, build.source, str(build.data))
    assert ("serve", engine["data"], engine["engine-state"], engine["run"], "0.0.0.0", 8080) == (
        serve.command,
        str(serve.data),
        str(serve.state),
        str(serve.run),
        serve.host,
        serve.port,
    )
    assert (beside["run"], beside["sidecar-state"], beside["keys"], "0.0.0.0") == (
        str(sidecar.run),
        str(sidecar.state),
        str(sidecar.keys),
        sidecar.host,
    )
    assert engine["run"] == beside["run"]


def test_the_grace_period_is_the_engines(pod: dict[str, Any]) -> None:
    """R-E17: what it plans its last writes by is what the kubelet gives, less the pause before the signal."""
    engine = container(pod, "engine")
    pause = engine["lifecycle"]["preStop"]["exec"]["command"]
    assert ["sleep", "5"] == pause
    assert pod["terminationGracePeriodSeconds"] == int(pause[1]) + read("engine", engine["args"]).grace


def test_its_probes_ask_what_it_answers(pod: dict[str, Any]) -> None:
    """R-T05: the engine is ready when it can be asked; the sidecar is never what makes a pod unready."""
    alive, ready = ({"path": path, "port": "http"} for path in ("/healthz", "/readyz"))
    engine = container(pod, "engine")
    assert [{"name": "http", "containerPort": 8080}] == engine["ports"]
    assert {
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": 120},
        "livenessProbe": {"httpGet": alive, "periodSeconds": 20, "timeoutSeconds": 5},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5},
    } == {name: part for name, part in engine.items() if name.endswith("Probe")}
    sidecar = container(pod, "membudget")
    assert [{"name": "membudget", "containerPort": 9465}] == sidecar["ports"]
    asked = {"path": "/healthz", "port": "membudget"}
    assert {
        "livenessProbe": {"httpGet": asked, "periodSeconds": 20, "timeoutSeconds": 5}
    } == {name: part for name, part in sidecar.items() if name.endswith("Probe")}  # fmt: skip


def test_the_sidecar_knows_which_pod_it_is_in(pod: dict[str, Any]) -> None:
    """R-P08: orders are taken for this pod only."""
    told = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container(pod, "membudget")["env"]}
    assert {
        "MEMBUDGET_POD_NAMESPACE": "metadata.namespace",
        "MEMBUDGET_POD_NAME": "metadata.name",
        "MEMBUDGET_POD_UID": "metadata.uid",
    } == told


def test_no_folder_is_memory(pod: dict[str, Any]) -> None:
    """R-E13: a spill into memory would count against the very limit; the keys are read-only, and may be missing."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {"run", "data", "engine-state", "sidecar-state", "tmp", "keys"} == set(volumes)
    assert [] == [name for name, volume in volumes.items() if "medium" in volume.get("emptyDir", {})]
    assert {"name": "membudget-keys", "optional": True} == volumes["keys"]["configMap"]
    (keys,) = [mount for mount in container(pod, "membudget")["volumeMounts"] if mount["name"] == "keys"]
    assert keys["readOnly"]


def test_limits_are_the_values_and_requested_in_full(chart: Chart, pod: dict[str, Any]) -> None:
    """R-P03: memory that is promised but not there would be taken from the page cache of a neighbour."""

    def memory(spec: dict[str, Any]) -> dict[str, tuple[str, str]]:
        return {
            found["name"]: (found["resources"]["requests"]["memory"], found["resources"]["limits"]["memory"])
            for found in security.containers(spec)
        }

    assert {"build-index": ("200Mi",) * 2, "membudget": ("48Mi",) * 2, "engine": ("200Mi",) * 2} == memory(pod)
    chosen = chart.render(VALUE_SETS["everything"]).one("Deployment", "search")["spec"]["template"]["spec"]
    assert ("1Gi", "1Gi") == memory(chosen)["engine"]


def test_its_policy_is_one_that_compiles(chart: Chart) -> None:
    """R-P05: and what the values say stands in it."""
    policy = chart.render({"example": {"enabled": True, "policy": {"spec": {"mode": "Observe"}}}}).one(
        "MemoryPolicy", "retriever"
    )
    assert ("Observe", "75%") == (policy["spec"]["mode"], policy["spec"]["budget"]["total"])
    compiled = compile_policy(parse_policy(policy))
    assert "75%" == compiled.total


def test_its_policy_comes_after_its_kind_and_stays(chart: Chart) -> None:
    """R-T05: a hook where the kind is new, of the release where it is known; kept by uninstall and rollback."""
    annotations = [
        chart.render(ON, *options).one("MemoryPolicy", "retriever")["metadata"]["annotations"]
        for options in ((), (KIND_KNOWN,))
    ]
    kept = {
        "helm.sh/resource-policy": "keep",
        "meta.helm.sh/release-name": "kept",
        "meta.helm.sh/release-namespace": NAMESPACE,
    }
    assert [{**kept, "helm.sh/hook": "post-install"}, kept] == annotations
    without = chart.render({"example": {"enabled": True, "policy": {"enabled": False}}})
    assert not without.of("MemoryPolicy")


def test_without_being_asked_for_there_is_no_example(chart: Chart) -> None:
    """R-T05: a production install has no workload of ours but the controller."""
    rendered = chart.render({})
    assert ["membudget-controller"] == [found["metadata"]["name"] for found in rendered.of("Deployment")]
    assert not rendered.of("Service") + rendered.of("MemoryPolicy")
