"""Volumes that outlive pods, made by hand: folders of the node, each for one claim, as no storage class is here."""

from __future__ import annotations

import json
from pathlib import Path

from node.installed import NAMESPACE
from node.node import NODE, Node


def provide(node: Node, folder: Path, claim: str, storage: str) -> None:
    """A persistent volume in `folder` that only this claim binds; the kubelet gives it to the pod's group."""
    folder.mkdir()
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": claim},
        "spec": {
            "capacity": {"storage": storage},
            "accessModes": ["ReadWriteOnce"],
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "claimRef": {"namespace": NAMESPACE, "name": claim},
        },
    }
    node.kubectl("apply", "-f", "-", stdin=json.dumps(volume))
