"""The log of writes by itself: whole batches or nothing, bounded reading, and damage told as what it is."""

import tracemalloc
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.written import note
from membudget_engine.index.build import Plan, build_bytes
from membudget_engine.sealing import write_logged
from membudget_engine.stores.write_log import Write, WriteLog

VECTOR = np.ones(4, dtype=np.float32)


def test_a_batch_that_fails_half_way_is_rolled_back_and_the_next_one_is_taken(tmp_path: Path) -> None:
    """R-E18: all or none, also where it is not SQLite that fails, which would end the transaction by itself."""
    good, next_one = note(1, "good"), note(2, "next")
    unwritable = msgspec.structs.replace(note(3, "bad"), source="\ud800")
    with closing(WriteLog(tmp_path, dimension=4, sealed=0)) as log:
        with pytest.raises(UnicodeEncodeError):
            log.append([Write(good.id, good, VECTOR), Write(unwritable.id, unwritable, VECTOR)])
        assert list(log.after(0, 10)) == []
        assert log.append([Write(next_one.id, next_one, VECTOR)]) == range(1, 2)
        assert [(logged.sequence, logged.write.chunk) for logged in log.after(0)] == [(1, next_one)]
    with closing(WriteLog(tmp_path, dimension=4, sealed=0)) as again:
        assert [logged.write.id for logged in again.after(0)] == ["note-2"]


def test_large_documents_are_read_and_sealed_within_what_the_ledger_is_asked_for(tmp_path: Path) -> None:
    """R-E16, R-E21: 256 of 256 kB; none is left out, and the log is read by bytes, not by writes."""
    documents = [note(number, f"{number} " * 65_536) for number in range(10, 266)]
    folder = tmp_path / "segment"
    folder.mkdir()
    with closing(WriteLog(tmp_path, dimension=4, sealed=0)) as log:
        for first in range(0, 256, 32):
            log.append([Write(one.id, one, VECTOR) for one in documents[first : first + 32]])
        asked = build_bytes(Plan("core", "given-4", 4, 1), log.count(0, 256))
        ids = [one.id for one in documents]
        del documents
        tracemalloc.start()
        try:
            assert 256 == write_logged(folder, log, 0, 256, lambda: False)
            sealing = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            assert ids == [logged.write.id for logged in log.after(0)]
            reading = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert max(sealing, reading) < asked < 256 * 65_536
