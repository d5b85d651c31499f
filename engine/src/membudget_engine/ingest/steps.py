"""Covers what people say of the documents of a source: which key is which field, and which documents are left out.

It does not cover reading documents (document_source) nor carrying the steps out (record).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from membudget_engine.errors import BuildFailed
from membudget_engine.ingest.document_source import FIELDS, Keys
from membudget_engine.ingest.record import Step


@dataclass(frozen=True, slots=True)
class FileSteps:
    """What is done to the documents of files, in this order."""

    keys: Sequence[str] = ()
    """FIELD=KEY: the chunk's field is the document's value under the key."""
    only: Sequence[str] = ()
    """FIELD=PATTERN: chunks whose field does not match, as file names do, are left out."""

    def document_keys(self) -> Keys:
        """The first step. Raises BuildFailed: one is written wrongly."""
        pairs = [text.partition("=") for text in self.keys]
        for text, (field, _, key) in zip(self.keys, pairs, strict=True):
            if field not in FIELDS or not key:
                raise BuildFailed(f"{text!r}: write FIELD=KEY with a field of {', '.join(FIELDS)}")
        return Keys({field: key for field, _, key in pairs})

    def filters(self) -> tuple[Step, ...]:
        """The second one. Raises BuildFailed: one is written wrongly."""
        return tuple(map(_filter, self.only))


def _filter(text: str) -> Step:
    field, _, pattern = text.partition("=")
    if field not in FIELDS or field == "vector" or not pattern:
        raise BuildFailed(f"{text!r}: write FIELD=PATTERN with a field of {', '.join(FIELDS[:-1])}")
    return lambda chunk: chunk if fnmatchcase(getattr(chunk, field), pattern) else None
