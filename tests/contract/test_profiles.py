import msgspec
import pytest

from membudget_contract.compile import compile_policy
from membudget_contract.plan import EffectivePlan
from membudget_contract.policy import API_VERSION, KIND, ProfileName, parse_policy
from membudget_contract.policy_alerts import AlertName
from membudget_contract.policy_thresholds import RungAction
from membudget_contract.profiles import PROFILES
from membudget_contract.quantities import MIB
from membudget_contract.resolve import resolve


def of_profile(profile: ProfileName) -> EffectivePlan:
    """What a policy of nothing but a profile comes to."""
    document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}, "spec": {"profile": profile.value}}
    return resolve(compile_policy(parse_policy(document)), environment={}, limit=None)


def test_production_splits_150_mib() -> None:
    """R-P02: 30, 40, 30, 20 and 30 MiB."""
    plan = of_profile(ProfileName.PRODUCTION)
    assert plan.total_bytes == 157_286_400
    assert plan.components == {
        "index": 31_457_280,
        "semanticCache": 41_943_040,
        "historyCache": 31_457_280,
        "embeddingBuffer": 20_971_520,
        "working": 31_457_280,
    }


def test_staging_splits_200_mib_around_a_cache_of_60() -> None:
    """R-P04: the other 140 MiB as 30:30:20:30; the byte left over goes to the largest remainder."""
    plan = of_profile(ProfileName.STAGING)
    assert plan.total_bytes == 209_715_200
    assert plan.components == {
        "index": 40_036_538,
        "semanticCache": 62_914_560,
        "historyCache": 40_036_538,
        "embeddingBuffer": 26_691_026,
        "working": 40_036_538,
    }


def test_development_splits_500_mib_around_a_cache_of_100() -> None:
    """R-P04: the other 400 MiB as 30:30:20:30."""
    plan = of_profile(ProfileName.DEVELOPMENT)
    assert plan.total_bytes == 524_288_000
    assert plan.components == {
        "index": 114_390_109,
        "semanticCache": 104_857_600,
        "historyCache": 114_390_109,
        "embeddingBuffer": 76_260_073,
        "working": 114_390_109,
    }


@pytest.mark.parametrize(
    ("profile", "gc_thresholds", "switches"),
    [
        (ProfileName.PRODUCTION, (10_000, 20, 20), {"mapped": True, "compression": True, "monitoring": True}),
        (ProfileName.STAGING, (5_000, 15, 15), {"mapped": False, "compression": True, "monitoring": True}),
        (ProfileName.DEVELOPMENT, (700, 10, 10), {"mapped": False, "compression": False, "monitoring": False}),
    ],
)
def test_profiles_set_collector_and_switches(
    profile: ProfileName, gc_thresholds: tuple[int, int, int], switches: dict[str, bool]
) -> None:
    """R-P04: as the table of profiles says; monitoring off means that no alert is raised."""
    plan = of_profile(profile)
    set_by_plan = {
        "mapped": plan.index_mapped,
        "compression": plan.cache_compression,
        "monitoring": plan.alerts.raises(AlertName.USAGE_HIGH),
    }
    assert (plan.gc_thresholds, set_by_plan) == (gc_thresholds, switches)


def test_the_alerts_of_production_are_those_of_the_table() -> None:
    """R-P06, R-S07: over 85 percent, over 140 of 150 MiB, 20 MiB within 50 s, a spill of over 5 s, twice the heap."""
    plan = of_profile(ProfileName.PRODUCTION)
    alerts = plan.alerts
    assert (alerts.usage_percent, alerts.usage_bytes(plan.total_bytes)) == (85, 140 * MIB)
    assert (alerts.growth_bytes, alerts.growth_seconds) == (20 * MIB, 50)
    assert (alerts.slow_spill_seconds, alerts.resident_over_heap_percent) == (5, 200)
    assert (alerts.leak_growth_bytes, alerts.leak_bytes_per_second, alerts.leak_bytes_per_hour) == (
        10 * MIB,
        10_486,
        10 * MIB,
    )


def test_an_alert_that_is_switched_off_is_not_raised() -> None:
    """R-S07: each by its name, and all of them together."""
    alerts = msgspec.structs.replace(of_profile(ProfileName.PRODUCTION).alerts, disabled=(AlertName.SLOW_SPILL,))
    assert (alerts.raises(AlertName.SLOW_SPILL), alerts.raises(AlertName.GROWTH)) == (False, True)
    assert not msgspec.structs.replace(alerts, enabled=False).raises(AlertName.GROWTH)


def test_the_figure_of_an_alert_may_be_a_percent_of_the_total() -> None:
    """R-S07: so that it follows a total that follows the container's limit."""
    alerts = msgspec.structs.replace(of_profile(ProfileName.PRODUCTION).alerts, usage="90%")
    assert alerts.usage_bytes(200 * MIB) == 180 * MIB


@pytest.mark.parametrize("profile", list(ProfileName))
def test_every_profile_has_the_same_ladder(profile: ProfileName) -> None:
    """R-P06: 80, 93 and 98 percent; Cleanup, Spill and Evict of 5, 10 and 15; collection from 75."""
    thresholds = of_profile(profile).thresholds
    rungs = (thresholds.soft, thresholds.hard, thresholds.emergency)
    assert [rung.percent for rung in rungs] == [80, 93, 98]
    assert [rung.release_percent for rung in rungs] == [75, 88, 94]
    assert [rung.action for rung in rungs] == [RungAction.CLEANUP, RungAction.SPILL, RungAction.EVICT]
    assert [rung.free_percent for rung in rungs] == [5, 10, 15]
    assert [rung.cooldown_seconds for rung in rungs] == [10, 10, 0]
    assert (thresholds.collect.percent, thresholds.collect.cooldown_seconds) == (75, 60)


@pytest.mark.parametrize("profile", list(ProfileName))
def test_the_split_of_a_profile_sums_to_its_total(profile: ProfileName) -> None:
    """R-P02: no byte is lost and none is given twice."""
    plan = of_profile(profile)
    assert sum(plan.components.values()) == plan.total_bytes


def test_every_profile_is_built_in() -> None:
    """R-P04: a name that a policy may write has a base."""
    assert set(PROFILES) == set(ProfileName)
    assert [of_profile(profile).spill_max_bytes for profile in ProfileName] == [1000 * MIB] * 3
