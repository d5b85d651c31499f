"""Leaves OpenSSL out of the process: 5 MB resident that nothing here uses (docs/decisions/0010).

hashlib and http.client then do what they do in a Python that was built without OpenSSL: SHA-256 is Python's own, and
HTTP is without TLS. Signatures are libsodium's.
"""

from __future__ import annotations

import sys


def leave_openssl_out() -> None:
    """To be called before hashlib and http.client are imported; a process that has either already keeps OpenSSL."""
    for module in ("_hashlib", "_ssl"):
        if module not in sys.modules:
            sys.modules[module] = None  # pyright: ignore[reportArgumentType]  how the import system is told "not here"
