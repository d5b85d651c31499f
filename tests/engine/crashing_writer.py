"""Writers that end by SIGKILL, each a process of its own forked from this one, which has imported everything.

A line on the standard input names data folder, state folder, journal, collection, seed, and a failpoint or `-`. The
child tells the journal what it begins and what was acknowledged, in single writes; a line on the standard output tells
its wait status.
"""

import itertools
import os
import random
import sys
from pathlib import Path

from engine.written import notes, written
from membudget_contract.failpoint import arm
from membudget_engine import index_reload, publishing, writer
from membudget_engine.failpoints import Failpoint
from membudget_engine.index import build, publication


def write(data: Path, state: Path, journal: Path, collection: str, seed: int) -> None:
    """Upserts and deletes with a seal after every third and a compaction after every sixth, until something ends it."""
    draw = random.Random(seed)
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with written(data, state) as opened:
        for step in itertools.count():
            first = draw.randrange(40)
            numbers = range(first, first + draw.randrange(1, 30))
            delete = draw.random() < 0.3 and collection in opened.catalog.collections
            kind = "delete" if delete else "put"
            text = f"seed {seed} step {step}"
            os.write(descriptor, f"begin {kind} {numbers.start} {numbers.stop} {text}\n".encode())
            if delete:
                opened.writer.delete(collection, [f"note-{number}" for number in numbers])
            else:
                opened.writer.upsert(collection, notes(numbers, text))
            os.write(descriptor, b"acknowledged\n")
            if step % 3 == 2:
                opened.writer.seal(collection)
            if step % 6 == 5:
                opened.writer.compact(collection)


def main() -> None:
    """Serve lines until the input ends."""
    for line in sys.stdin:
        data, state, journal, collection, seed, failpoint = line.split()
        child = os.fork()
        if not child:
            passed = arm(Failpoint, None if failpoint == "-" else failpoint)
            for module in (writer, publishing, build, publication, index_reload):
                module.__dict__["passed"] = passed
            write(Path(data), Path(state), Path(journal), collection, int(seed))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
