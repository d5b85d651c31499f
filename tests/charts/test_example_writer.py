"""The example with a writer: one engine that takes writes, on a volume that the readers see and cannot change."""

from __future__ import annotations

from typing import Any

import pytest

from charts import security
from charts.programs import read
from charts.rendering import VALUE_SETS, Chart, Manifests
from charts.test_example import container, mounts

WRITER = "retriever-writer"


@pytest.fixture(scope="module")
def rendered(chart: Chart) -> Manifests:
    """By defaults, with the writer."""
    return chart.render(VALUE_SETS["writer"])


@pytest.fixture(scope="module")
def writer(rendered: Manifests) -> dict[str, Any]:
    """Its spec."""
    return rendered.one("StatefulSet", WRITER)["spec"]


@pytest.fixture(scope="module")
def reader(rendered: Manifests) -> dict[str, Any]:
    """A reader's pod."""
    return rendered.one("Deployment", "retriever")["spec"]["template"]["spec"]


def test_it_is_asked_for(chart: Chart) -> None:
    """R-T05: an example without a volume runs where no storage is."""
    plain = chart.render({"example": {"enabled": True}})
    assert [] == plain.of("StatefulSet") + [service for service in plain.of("Service") if "writer" in str(service)]


def test_there_is_one_with_a_volume_of_its_own(writer: dict[str, Any]) -> None:
    """R-E18: a second one would find the collections held; the volume outlives the pod."""
    (claim,) = writer["volumeClaimTemplates"]
    assert (1, WRITER, "data") == (writer["replicas"], writer["serviceName"], claim["metadata"]["name"])
    assert {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}} == claim["spec"]


def test_it_is_opted_in_and_found_apart_from_the_readers(rendered: Manifests, writer: dict[str, Any]) -> None:
    """R-P01: searches go to the readers, writes to the writer, and each has a policy."""
    assert {"app": WRITER, "membudget.dev/managed": "true"} == writer["template"]["metadata"]["labels"]
    assert [{"app": WRITER}] * 3 == [
        writer["selector"]["matchLabels"],
        rendered.one("Service", WRITER)["spec"]["selector"],
        rendered.one("MemoryPolicy", WRITER)["spec"]["selector"]["matchLabels"],
    ]
    assert {"app": "retriever"} == rendered.one("Service", "retriever")["spec"]["selector"]
    policies = [policy["spec"]["budget"] for policy in rendered.of("MemoryPolicy")]
    assert policies[0] == policies[1]


def test_its_arguments_are_taken_by_the_programs(writer: dict[str, Any], reader: dict[str, Any]) -> None:
    """R-T05: what is there already is kept, since a restart comes after writes; only the writer writes."""
    pod = writer["template"]["spec"]
    build = read("engine", container(pod, "build-index")["args"])
    serve = read("engine", container(pod, "engine")["args"])
    assert (True, True, True) == (build.keep, serve.writer, str(build.data) == str(serve.data))
    assert mounts(pod, "engine")["data"] == mounts(reader, "engine")["data"] == str(serve.data)
    ready = read("engine", container(reader, "writer-ready")["args"])
    assert ("check", WRITER, 8080) == (ready.command, ready.host, ready.port)
    assert not read("engine", container(reader, "engine")["args"]).writer


def test_readers_see_its_volume_and_cannot_change_it(writer: dict[str, Any], reader: dict[str, Any]) -> None:
    """R-E18: the claim that the stateful set makes, by its name; mounted for reading."""
    (claim,) = writer["volumeClaimTemplates"]
    (data,) = [volume for volume in reader["volumes"] if volume["name"] == "data"]
    name = f"{claim['metadata']['name']}-{WRITER}-0"
    assert {"claimName": name, "readOnly": True} == data["persistentVolumeClaim"]
    (mount,) = [mount for mount in container(reader, "engine")["volumeMounts"] if mount["name"] == "data"]
    assert mount["readOnly"]
    (own,) = [
        mount for mount in container(writer["template"]["spec"], "engine")["volumeMounts"] if mount["name"] == "data"
    ]
    assert "readOnly" not in own


def test_a_volume_of_one_node_keeps_readers_there_and_a_shared_one_lets_them_go(
    chart: Chart, reader: dict[str, Any]
) -> None:
    """R-T05: ReadWriteOnce means one node, which every cluster can do."""
    (rule,) = reader["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert ({"app": WRITER}, "kubernetes.io/hostname") == (rule["labelSelector"]["matchLabels"], rule["topologyKey"])
    shared = chart.render(VALUE_SETS["everything"])
    assert "affinity" not in shared.one("Deployment", "search")["spec"]["template"]["spec"]
    (claim,) = shared.one("StatefulSet", "search-writer")["spec"]["volumeClaimTemplates"]
    assert (["ReadWriteMany"], "shared.example.com") == (
        claim["spec"]["accessModes"],
        claim["spec"]["storageClassName"],
    )


def test_its_pod_is_as_closed_as_a_reader(writer: dict[str, Any], reader: dict[str, Any]) -> None:
    """R-T06: the same sidecar, the same security, no token."""
    pod = writer["template"]["spec"]
    contexts = [found["securityContext"] for found in security.containers(pod)]
    assert (security.POD, [security.CONTAINER] * 3) == (pod["securityContext"], contexts)
    assert ([], [], False) == (security.opened(pod), security.opened(reader), pod["automountServiceAccountToken"])
    assert container(reader, "membudget") == container(pod, "membudget")
