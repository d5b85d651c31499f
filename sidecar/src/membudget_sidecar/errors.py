"""Errors of the sidecar.

SidecarError
+-- EngineUnreachable   nobody answers on the control socket, or not in time
+-- EngineRefused       the runtime answered with a problem
+-- QueueFull           too many actions wait already; retriable
"""

from __future__ import annotations


class SidecarError(Exception):
    """Base of all errors of the sidecar."""


class EngineUnreachable(SidecarError):
    """The control socket is missing, nobody listens, or the answer took too long or was cut."""


class EngineRefused(SidecarError):
    """The runtime understood the request and refused it; the message is its own."""


class QueueFull(SidecarError):
    """The queue of actions is full; try again when some are done."""
