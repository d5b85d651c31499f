"""How a measured program says where it stands, and waits until its memory was read.

Covers: the lines both sides speak. Does not cover reading (`membudget_cli.profile.outside`).
"""

from __future__ import annotations

import gc
import sys


def stand_still(word: str, *figures: float) -> None:
    """Collect garbage, say the word with figures, and go on when a line comes in; end when nobody is there any more."""
    gc.collect()
    sys.stdout.write(" ".join([word, *map(repr, figures)]) + "\n")
    sys.stdout.flush()
    if not sys.stdin.readline():
        sys.exit("nobody reads any more")
