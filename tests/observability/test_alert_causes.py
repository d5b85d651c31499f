"""Each alert fires by its real cause, in a real Prometheus that scrapes real processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from membudget_observability.alerting import ALERTS
from observability.causes import CAUSES

if TYPE_CHECKING:
    from observability.conftest import Observed

NAMES = [alert.name for alert in ALERTS]
PLACES = [(name, cause.pod) for cause in CAUSES for name in cause.alerts]


def test_every_alert_has_one_cause_here() -> None:
    """R-T04: an alert that is added needs a cause."""
    assert Counter(NAMES) == Counter(name for cause in CAUSES for name in cause.alerts)


@pytest.mark.cluster
@pytest.mark.cgroup
@pytest.mark.prometheus
def test_while_all_is_well_nothing_fires(observed: Observed) -> None:
    """R-T04: five pods and a controller that have just started; only the alerts of a policy, which are information."""
    assert {one for one in observed.story.at_rest if one.severity != "info"} == set()


@pytest.mark.cluster
@pytest.mark.cgroup
@pytest.mark.prometheus
@pytest.mark.parametrize(("name", "pod"), PLACES)
def test_an_alert_fires_in_the_pod_of_its_cause_and_not_before(name: str, pod: str, observed: Observed) -> None:
    """R-T04: the rules as shipped, but for a `for` and an interval of a second each."""
    before = {(one.alert, one.pod) for one in observed.story.at_rest}
    assert (False, True) == ((name, pod) in before, (name, pod) in observed.story.fired)


@pytest.mark.cluster
@pytest.mark.cgroup
@pytest.mark.prometheus
def test_every_rule_can_be_evaluated(observed: Observed, publish: Callable[[str], None]) -> None:
    """R-T04: many-to-many matches and the like only show with real labels."""
    fired, seconds = len(observed.story.fired), observed.story.seconds
    publish(f"{fired} of {len(NAMES)} alerts fired by their real causes, one after the other, within {seconds:.0f} s")
    assert observed.server.unhealthy_rules() == []
