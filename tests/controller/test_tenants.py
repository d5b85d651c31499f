"""No policy reaches over the border of its namespace, whatever its name, selector and precedence (R-P01, R-P08)."""

from __future__ import annotations

import random
from collections import defaultdict

from controller.cluster_objects import make_pod, make_policy
from membudget_controller.objects import ObservedPod, ObservedPolicy
from membudget_controller.targets import assign

NAMESPACES = [f"tenant-{number}" for number in range(50)]
POLICIES = 2_000
PODS = 8_000
LABELS = [{"app": app, "tier": tier} for app in ("retriever", "other") for tier in ("a", "b", "c")]
SELECTORS = [
    {"matchLabels": {"app": "retriever"}},
    {"matchLabels": {"tier": "a"}},
    {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
    {"matchExpressions": [{"key": "absent", "operator": "DoesNotExist"}]},
    {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["b"]}]},
]


def random_policy(chance: random.Random, number: int) -> ObservedPolicy:
    """Few names, so that every tenant has its own of each; no two are deleted and made in the same breath."""
    namespace = chance.choice(NAMESPACES)
    return make_policy(
        f"policy-{number}",
        namespace=namespace,
        uid=f"{namespace}/{number}",
        selector=chance.choice(SELECTORS),
        precedence=chance.randint(-1000, 1000),
        total=f"{chance.randint(100, 900)}Mi",
        created=f"2026-11-{chance.randint(1, 20):02}T10:00:00Z",
    )


def random_pod(chance: random.Random, number: int) -> ObservedPod:
    """The same names and addresses in many namespaces."""
    namespace = chance.choice(NAMESPACES)
    address = f"10.244.{number % 250}.{chance.randint(1, 250)}"
    return make_pod(
        f"pod-{number % 200}",
        namespace=namespace,
        uid=f"{namespace}/{number}",
        labels=chance.choice(LABELS),
        ip=address,
    )


def test_no_tenant_moves_a_pod_of_another_in_ten_thousand_policies_and_pods() -> None:
    """Fault 103: what the pods of one namespace get is the same with and without everybody else's policies."""
    chance = random.Random(2026)
    policies = [random_policy(chance, number) for number in range(POLICIES)]
    pods = [random_pod(chance, number) for number in range(PODS)]
    together = assign(policies, pods)
    home = {policy.uid: policy.namespace for policy in policies}
    followed = [(target, target.desired.policy) for target in together.targets.values()]
    strangers = [
        (target.pod, policy) for target, policy in followed if policy and home[policy.uid] != target.pod.namespace
    ]
    own_policies: defaultdict[str, list[ObservedPolicy]] = defaultdict(list)
    own_pods: defaultdict[str, list[ObservedPod]] = defaultdict(list)
    for policy in policies:
        own_policies[policy.namespace].append(policy)
    for pod in pods:
        own_pods[pod.namespace].append(pod)
    alone = [assign(own_policies[namespace], own_pods[namespace]) for namespace in NAMESPACES]
    targets = {uid: target for one in alone for uid, target in one.targets.items()}
    following = {uid: one for each in alone for uid, one in each.following.items()}
    assert strangers == []
    assert (together.targets, together.following) == (targets, following)
    assert sum(policy is not None for _, policy in followed) > PODS // 2
