"""Writes the OpenAPI document of the sidecar's local API, from the table that serves it: `make api-docs`.

Covers: the committed document beside this script, which a test compares with what a sidecar serves.
"""  # noqa: INP001

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from membudget_sidecar.servers import make_loop
from membudget_sidecar.serving.api import operations
from membudget_sidecar.serving.local_status import Served
from membudget_sidecar.serving.openapi import document
from membudget_sidecar.settings import SidecarSettings

COMMITTED = Path(__file__).with_name("sidecar.openapi.json")


def rendered() -> bytes:
    """The document as it is committed."""
    with tempfile.TemporaryDirectory() as folder:
        settings = SidecarSettings(Path(folder), Path(folder), None)
        served = Served(make_loop(settings), None, settings)
        return msgspec.json.format(msgspec.json.encode(document(operations(served))), indent=2) + b"\n"


if __name__ == "__main__":
    COMMITTED.write_bytes(rendered())
