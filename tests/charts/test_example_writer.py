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


def claimed(stateful_set: dict[str, Any], name: str) -> dict[str, Any]:
    """One of the claims that it makes."""
    (found,) = [claim for claim in stateful_set["volumeClaimTemplates"] if claim["metadata"]["name"] == name]
    return found


def test_it_is_asked_for(chart: Chart) -> None:
    """R-T05: an example without a volume runs where no storage is."""
    plain = chart.render({"example": {"enabled": True}})
    assert [] == plain.of("StatefulSet") + [service for service in plain.of("Service") if "writer" in str(service)]


def test_there_is_one_with_volumes_of_its_own(writer: dict[str, Any]) -> None:
    """R-E18: a second one would find the collections held; the volumes outlive the pod."""
    assert (1, WRITER) == (writer["replicas"], writer["serviceName"])
    for claim, storage in zip(writer["volumeClaimTemplates"], ("2Gi", "1500Mi"), strict=True):
        assert {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}} == claim["spec"]


def test_what_it_persists_is_there_for_its_next_pod(writer: dict[str, Any], reader: dict[str, Any]) -> None:
    """R-E17: its state has a claim, apart from the data: values that are spilled take no room from writes."""
    claims = [claim["metadata"]["name"] for claim in writer["volumeClaimTemplates"]]
    pod = writer["template"]["spec"]
    assert ["data", "engine-state"] == claims
    assert [] == [volume["name"] for volume in pod["volumes"] if volume["name"] in claims]
    assert mounts(pod, "engine")["engine-state"] == str(read("engine", container(pod, "engine")["args"]).state)
    (state,) = [volume for volume in reader["volumes"] if volume["name"] == "engine-state"]
    assert {"sizeLimit": "1500Mi"} == state["emptyDir"]


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
    claim = claimed(writer, "data")
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
    search_writer = shared.one("StatefulSet", "search-writer")["spec"]
    modes = {"data": ["ReadWriteMany"], "engine-state": ["ReadWriteOnce"]}
    for name, asked in modes.items():
        claim = claimed(search_writer, name)["spec"]
        assert (asked, "shared.example.com") == (claim["accessModes"], claim["storageClassName"])


def test_its_pod_is_as_closed_as_a_reader(writer: dict[str, Any], reader: dict[str, Any]) -> None:
    """R-T06: the same sidecar, the same security, no token."""
    pod = writer["template"]["spec"]
    contexts = [found["securityContext"] for found in security.containers(pod)]
    assert (security.POD, [security.CONTAINER] * 3) == (pod["securityContext"], contexts)
    assert ([], [], False) == (security.opened(pod), security.opened(reader), pod["automountServiceAccountToken"])
    assert container(reader, "membudget") == container(pod, "membudget")
