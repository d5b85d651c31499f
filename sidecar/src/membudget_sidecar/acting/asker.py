"""Questions to the engine, asked beside the loop: an engine that answers late must not delay the next look.

Covers: one question at a time, in a thread of its own. Does not cover what is asked (`watch`, `engine_link`, `room`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

STOP_SECONDS: Final = 2.0
"""A question still in work after that is given up with the process."""

log = logging.getLogger(__name__)


class Asker:
    """Before `start` a question is answered at once, in the thread of who asks; after it, in a thread of its own."""

    def __init__(self, ended: Callable[[], None]) -> None:
        """Call `ended` after each question, in the thread that asked it."""
        self._ended = ended
        self._questions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """From now on nobody waits for an answer."""
        self._thread = threading.Thread(target=self._work, name="asker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the question in work."""
        if self._thread is not None:
            self._questions.put(None)
            self._thread.join(STOP_SECONDS)

    def ask(self, question: Callable[[], None]) -> None:
        """Ask, unless the question before is still without an answer: another one would only wait behind it."""
        if self._busy:
            return
        self._busy = True
        if self._thread is None:
            self._answer(question)
        else:
            self._questions.put(question)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            self._answer(question)

    def _answer(self, question: Callable[[], None]) -> None:
        try:
            question()
        except Exception:  # a defect in one answer must not end the asking
            log.exception("a question to the engine failed")
        self._busy = False
        self._ended()
