"""Documents from files: the same objects from lines and from an array, whatever the file is torn or filled with."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membudget_engine.errors import SourceInvalid
from membudget_engine.ingest import document_source
from membudget_engine.ingest.document_source import DocumentSource, Keys
from membudget_engine.ingest.record import Record

DOCUMENTS = [
    {"id": "a", "source": "first", "path": "x.md", "name": "X"},
    {"id": "b", "source": 'a "quoted", ] } text é €', "extra": {"deep": [1, 2, {"k": "]"}]}},
    {"source": "no id"},
]

_values = st.dictionaries(
    st.sampled_from(["id", "source", "path", "name", "extra"]),
    st.one_of(st.text(max_size=40), st.integers(-10, 10**6), st.lists(st.text(max_size=5), max_size=3), st.none()),
)


def _file(folder: Path, documents: list[Any], suffix: str) -> Path:
    file = folder / f"documents{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps(documents, indent=1, ensure_ascii=False), encoding="utf-8")
    else:
        file.write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".json", ".ndjson", ".jsonl"])
def test_a_document_becomes_a_chunk_of_the_same_fields(tmp_path: Path, suffix: str) -> None:
    """R-E16: what a document does not say is taken from the file."""
    records = [*DocumentSource(_file(tmp_path, DOCUMENTS, suffix), Keys()).records(0)]

    assert ["first", 'a "quoted", ] } text é €', "no id"] == [record.chunk.source for record in records]
    assert ["x.md", f"documents{suffix}", f"documents{suffix}"] == [record.chunk.path for record in records]
    assert ["a", "b"] == [record.chunk.id for record in records[:2]]
    assert {"text"} == {record.chunk.kind for record in records}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_values, max_size=8), st.sampled_from([".json", ".ndjson"]), st.integers(1, 30), st.data())
def test_a_reading_goes_on_from_any_position_as_if_it_had_not_stopped(
    tmp_path: Path, documents: list[Any], suffix: str, block: int, data: st.DataObject
) -> None:
    """R-E16: resumable; with blocks of any length, so that every value is cut somewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_source, "_BLOCK_BYTES", block)
        documents = [{**document, "id": str(number)} for number, document in enumerate(documents)]
        source = DocumentSource(_file(tmp_path, documents, suffix), Keys())
        records = [*source.records(0)]
        assert [str(number) for number in range(len(documents))] == [record.chunk.id for record in records]
        stop = data.draw(st.integers(0, len(records)))
        position = records[stop - 1].position if stop else 0
        assert [*_plain(records[stop:])] == [*_plain([*source.records(position)])]


def _plain(records: list[Record]) -> list[tuple[str, str, int]]:
    return [(record.chunk.id, record.chunk.source, record.position) for record in records]


def test_keys_say_which_value_is_which_field(tmp_path: Path) -> None:
    """R-E16: a map step; what is no text is told as JSON."""
    file = _file(tmp_path, [{"number": 7, "body": "text", "meta": {"a": 1}, "emb": [1, 2.5]}], ".ndjson")
    source = DocumentSource(file, Keys({"id": "number", "source": "body", "docstring": "meta", "vector": "emb"}))
    (record,) = source.records(0)

    assert ("7", "text", '{"a": 1}') == (record.chunk.id, record.chunk.source, record.chunk.docstring)
    assert record.vector is not None
    assert (record.vector.tolist(), source.extent.dimension) == ([1.0, 2.5], 2)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".json", b'{"id": 1}'),
        (".json", b'[{"id": 1}'),
        (".json", b'[{"id": 1} {"id": 2}]'),
        (".json", b"[1]"),
        (".json", b"[NaN]"),
        (".json", b"[" * 100_000),
        (".json", b'[{"id": "\xff"}]'),
        (".json", b""),
        (".ndjson", b'{"id": 1}\n{"id": '),
        (".ndjson", b"[1, 2]\n"),
        (".ndjson", b"[" * 100_000),
        (".ndjson", b'{"id": "\xff"}\n'),
        (".ndjson", b'{"vector": []}\n'),
        (".ndjson", b'{"vector": ["1"]}\n'),
        (".ndjson", b'{"vector": [1e400]}\n'),
    ],
)
def test_a_file_that_is_torn_foreign_or_hostile_is_refused_with_its_name(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    """R-E16, fault 109: no recursion, no NaN, no bad UTF-8."""
    file = tmp_path / f"hostile{suffix}"
    file.write_bytes(content)

    with pytest.raises(SourceInvalid, match="hostile"):
        list(DocumentSource(file, Keys()).records(0))


@pytest.mark.parametrize("suffix", [".json", ".ndjson"])
def test_a_document_without_end_is_refused_before_it_fills_memory(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-E16: bounded bytes, whatever a line has."""
    monkeypatch.setattr(document_source, "MAX_DOCUMENT_BYTES", 100_000)
    file = tmp_path / f"long{suffix}"
    file.write_bytes(b'[{"id": "' + b"x" * 10_000_000)

    with pytest.raises(SourceInvalid):
        list(DocumentSource(file, Keys()).records(0))
