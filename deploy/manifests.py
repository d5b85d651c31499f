"""Plain manifests for who has no helm: dist/manifests, to be applied by `kubectl apply --server-side -f`.

Covers: `membudget.yaml`, all of the chart by its default values in the namespace membudget-system; `example.yaml`, the
retrieval deployment with its policy, and `example-with-writer.yaml`, the same reading from a writer's volume, in
whichever namespace kubectl is told. All are the chart's own, rendered by
helm and freed of what only helm reads. It needs helm on the PATH; other values are for helm itself (docs/install.md).
"""  # noqa: INP001

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

REPOSITORY: Final = Path(__file__).parents[1]
CHART: Final = REPOSITORY / "charts" / "membudget"
MANIFESTS: Final = REPOSITORY / "dist" / "manifests"
NAMESPACE: Final = "membudget-system"
HEADER: Final = "# Rendered from charts/membudget by deploy/manifests.py (make manifests).\n"
ORDER: Final = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "Secret", "ClusterRole", "Role")
"""What others need comes first; the rest as helm orders it."""
_HELMS: Final = ("helm.sh/", "meta.helm.sh/", "app.kubernetes.io/managed-by")
_RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}

Object = dict[str, Any]


def write(folder: Path = MANIFESTS) -> list[Path]:
    """All files.

    Raises:
        OSError: there is no helm, or the folder cannot be written.
        subprocess.CalledProcessError: helm refused the chart and has said why.
    """
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": _RESTRICTED}}
    on = "--set=example.enabled=true"
    example = _rendered(on, "--show-only=templates/example.yaml")
    both = ("--show-only=templates/example.yaml", "--show-only=templates/example-writer.yaml")
    with_writer = _rendered(on, "--set=example.writer.enabled=true", *both)
    for found in (*example, *with_writer):
        del found["metadata"]["namespace"]
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write(folder / "membudget.yaml", [namespace, *_rendered()]),
        _write(folder / "example.yaml", example),
        _write(folder / "example-with-writer.yaml", with_writer),
    ]


def _rendered(*options: str) -> list[Object]:
    helm = shutil.which("helm")
    if helm is None:
        raise FileNotFoundError("helm is missing: install it, or run `make cluster-binaries`, which builds one")
    command = [helm, "template", "membudget", str(CHART), f"--namespace={NAMESPACE}", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [_plain(found) for found in yaml.safe_load_all(done.stdout) if found]


def _plain(found: Object) -> Object:
    """Without the labels and annotations that are helm's, in the pods of a workload too."""
    for metadata in (found["metadata"], found.get("spec", {}).get("template", {}).get("metadata", {})):
        for part in ("labels", "annotations"):
            kept = {name: value for name, value in metadata.get(part, {}).items() if not name.startswith(_HELMS)}
            metadata.pop(part, None)
            if kept:
                metadata[part] = kept
    return found


def _write(file: Path, objects: Iterable[Object]) -> Path:
    last = len(ORDER)
    ordered = sorted(objects, key=lambda each: ORDER.index(each["kind"]) if each["kind"] in ORDER else last)
    file.write_text(HEADER + yaml.safe_dump_all(ordered, sort_keys=False, width=120, allow_unicode=True))
    return file


if __name__ == "__main__":
    try:
        sys.stdout.write("".join(f"{file.relative_to(REPOSITORY)}\n" for file in write()))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"manifests: {error}")
