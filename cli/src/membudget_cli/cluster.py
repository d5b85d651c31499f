"""The cluster that KUBECONFIG names, by the official client.

Covers: the client with its credentials, and everything that may go wrong on the way as one error with a sentence.
Does not cover what is asked (`cluster_status`, `lint`, `pod_exec`).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Generator
from typing import Any, Final

import urllib3

SECONDS: Final = 10.0
"""For each request."""


class ClusterUnreachable(Exception):
    """No cluster is configured, it does not answer, or it refused; the message says which."""


@contextlib.contextmanager
def cluster_client() -> Generator[Any]:
    """The module `kubernetes.client`, configured; raises ClusterUnreachable for what fails inside as well."""
    # It has no types, and takes half a second to import: only who asks a cluster pays for it.
    client: Any = importlib.import_module("kubernetes.client")
    config: Any = importlib.import_module("kubernetes.config")
    try:
        config.load_kube_config()
        yield client
    except config.ConfigException as error:
        raise ClusterUnreachable(f"no cluster is configured: {str(error).rstrip('.')}; set KUBECONFIG") from None
    except client.ApiException as error:
        raise ClusterUnreachable(f"the cluster refused: {error.status} {error.reason}") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ClusterUnreachable(f"the cluster does not answer as it should: {error}") from None


def context_namespace() -> str:
    """Where `kubectl` without `--namespace` looks: that of KUBECONFIG's context. Raises as `cluster_client`'s block."""
    config: Any = importlib.import_module("kubernetes.config")
    _, active = config.list_kube_config_contexts()
    return str(active["context"].get("namespace") or "default")
