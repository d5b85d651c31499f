"""What must outlive a release: the definition with its policies, and the Secret that pods verify orders by."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from charts.rendering import CHART, FILES, VALUE_SETS, Chart

DEFINITION, KEYS = "memorypolicies.membudget.dev", "membudget-controller-keys"
KEEP = {"helm.sh/resource-policy": "keep"}


def test_the_definition_is_the_one_that_kubectl_takes_too(chart: Chart) -> None:
    """R-P01: spec and name are the plain file's, and helm leaves it when the release goes."""
    plain = yaml.safe_load((FILES / f"{DEFINITION}.yaml").read_text())
    rendered = chart.render({}).one("CustomResourceDefinition", DEFINITION)
    assert (plain["spec"], KEEP) == (rendered["spec"], rendered["metadata"]["annotations"])


def test_who_wants_it_gone_with_the_release_says_so(chart: Chart) -> None:
    """R-T05: crds.keep, and crds.enabled for those who install it otherwise."""
    given_up = chart.render({"crds": {"keep": False}}).one("CustomResourceDefinition", DEFINITION)
    assert "annotations" not in given_up["metadata"]
    assert not chart.render({"crds": {"enabled": False}}).of("CustomResourceDefinition")


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_the_key_secret_is_empty_and_kept(chart: Chart, values: Any) -> None:
    """R-P08: the controller fills it; nothing in it may come from a release or be remembered by one."""
    secret = chart.render(values).one("Secret", KEYS)
    assert (KEEP, "Opaque", set()) == (
        secret["metadata"]["annotations"],
        secret["type"],
        {"data", "stringData"} & set(secret),
    )


def test_no_template_reads_from_the_cluster() -> None:
    """R-T05: what `helm template` shows is what is installed, and no secret gets into a release's history."""
    assert [] == [path.name for path in (CHART / "templates").iterdir() if "lookup" in path.read_text()]
