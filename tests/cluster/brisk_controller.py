"""The controller with short times, as a program: what takes minutes in a cluster takes seconds in a test.

Nothing but the times differs from `membudget-controller`. Those of a watch are shorter than the minute between two of
the API server's bookmarks, so a watch begins anew every few seconds here even where nothing is wrong.
"""

import sys
from dataclasses import replace

from membudget_controller.__main__ import USUAL, main

BRISK = replace(
    USUAL,
    list_seconds=2.0,
    request_seconds=3.0,
    watch_silence_seconds=3.0,
    watch_behind_seconds=5.0,
    report_seconds=2.0,
)

if __name__ == "__main__":
    sys.exit(main(times=BRISK))
