"""The log of writes by itself: a batch that fails half way leaves nothing, and the log takes the next one."""

from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.written import note
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
