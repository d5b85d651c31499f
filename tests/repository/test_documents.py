"""What README and docs show is what the product takes and says."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from documents import DOCUMENTS, ROOT, Block, blocks, command_blocks
from membudget_cli import arguments
from membudget_contract.compile import compile_policy
from membudget_contract.crd import custom_resource_definition
from membudget_contract.policy import parse_policy
from membudget_contract.policy_status import REASONS
from membudget_engine import __main__ as engine
from membudget_sidecar import __main__ as sidecar

README = (ROOT / "README.md").read_text()

RUN_BY = {
    "README.md": ("tests/system/test_readme_commands.py", "tests/cluster/test_documents_in_a_cluster.py"),
    "docs/api/README.md": ("tests/system/test_readme_commands.py",),
    "docs/api/engine.md": ("tests/system/test_readme_commands.py",),
    "docs/install.md": ("tests/cluster/test_install_document.py",),
    "docs/runbooks": ("tests/cluster/test_documents_in_a_cluster.py",),
}
"""Documents with commands other than `make`, and the tests that type them."""
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "membudget": arguments.parser,
    "membudget-engine": engine._parser,  # pyright: ignore[reportPrivateUsage]
    "membudget-sidecar": sidecar._parser,  # pyright: ignore[reportPrivateUsage]
}


def written() -> Iterator[tuple[Block, list[str]]]:
    """Every command of every document."""
    for document in DOCUMENTS:
        for block in command_blocks(document):
            for command in block.commands():
                yield block, [word for word in command if word != "&"]


def problem(command: list[str]) -> str | None:
    """What its program's own parser says against it."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            PARSERS[command[0]]().parse_args(command[1:])
    except SystemExit:
        return said.getvalue()
    return None


def options(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    """Which options it takes after these words, as its help lists them; empty where there is no such command."""
    said = io.StringIO()
    commands = [word for word in words[:1] if not word.startswith("-")]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        parser.parse_args([*commands, "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", said.getvalue()))


def test_every_document_with_commands_is_typed_by_a_test() -> None:
    """R-T03: a new one must find its test, or say by which it is run."""
    with_commands = {block.document for block, command in written() if not is_make(command)}
    assert [] == sorted(document for document in with_commands if not any(map(document.startswith, RUN_BY)))
    assert [] == [place for place in RUN_BY if not any(document.startswith(place) for document in with_commands)]
    for place, tests in RUN_BY.items():
        assert [] == [test for test in tests if Path(place).name not in (ROOT / test).read_text()]


def is_make(command: list[str]) -> bool:
    """A target of ours, with or without a variable before it."""
    return "make" in command[:2]


@pytest.mark.parametrize("program", PARSERS)
def test_commands_in_the_documents_are_what_the_programs_take(program: str) -> None:
    """R-T03: by the parser that the program itself has."""
    found = [(block.document, shlex.join(words), problem(words)) for block, words in written() if words[0] == program]
    assert [] == [each for each in found if each[2] is not None]
    assert found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_commands_named_in_sentences_have_the_options_that_are_named(document: Path) -> None:
    """R-T03: `membudget top --once` in a line of text is held as well."""
    spans = re.findall(
        r"`((?:kubectl )?membudget(?:-engine|-sidecar)? [^`]+)`", document.read_text().replace("\n", " ")
    )
    for span in spans:
        program, *words = span.removeprefix("kubectl ").split()
        if program not in PARSERS:
            continue
        known = options(PARSERS[program](), words)
        assert (span, True, []) == (span, bool(known), [w for w in words if w[0] == "-" and w not in known])


def test_every_make_target_in_the_documents_exists() -> None:
    """README, CONTRIBUTING, docs and the makefile's help agree."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for _, command in written() if is_make(command) for word in after_make(command)}
    for document in DOCUMENTS:
        named |= set(re.findall(r"`make ([a-z0-9-]+)", document.read_text()))
    assert sorted(named - targets) == []
    assert {"demo", "test", "profile"} <= named


def after_make(command: list[str]) -> list[str]:
    """The targets."""
    return [word for word in command[command.index("make") + 1 :] if re.fullmatch(r"[a-z0-9-]+", word)]


def test_every_policy_in_the_documents_compiles() -> None:
    """R-P05: a reader who copies it gets a plan; every other piece of YAML is YAML."""
    shown = [
        yaml.safe_load(block.text) for document in DOCUMENTS for block in blocks(document) if block.language == "yaml"
    ]
    policies = [piece for piece in shown if piece.get("kind") == "MemoryPolicy"]
    assert {"150Mi", "75%"} <= {compile_policy(parse_policy(piece)).total for piece in policies}


def test_the_readme_shows_policies_in_the_columns_that_kubectl_prints() -> None:
    """R-P01: the definition's own, with the namespace that `--all-namespaces` puts before them."""
    shown = next(line for line in README.splitlines() if line.startswith("NAMESPACE"))
    columns = custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    printed = [column["name"].upper() for column in columns if not column.get("priority")]
    assert ["NAMESPACE", "NAME", *printed] == shown.split()


def test_every_command_of_the_command_line_has_its_place_in_the_readme() -> None:
    """R-T03."""
    listed = re.search(r"\{([a-z,]+)\}", arguments.parser().format_usage())
    assert listed is not None
    commands = listed[1].split(",")
    table = "\n".join(line for line in README.splitlines() if line.startswith("| `membudget "))
    assert [] == [name for name in commands if name != "completion" and name not in table]


def test_the_table_of_conditions_is_the_enum() -> None:
    """R-P10: every reason of every condition has its line, and no line is invented."""
    table = (ROOT / "docs" / "conditions.md").read_text()
    lines = re.findall(r"^\| (Accepted|Programmed|Ready|Resized) \| \w+ \| (\w+) \|", table, re.MULTILINE)
    expected = {(condition.value, reason.value) for condition, reasons in REASONS.items() for reason in reasons}
    assert set(lines) == expected


def test_every_link_to_a_file_leads_somewhere() -> None:
    """Relative links of all documents."""
    links = [(file, link) for file in DOCUMENTS for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text())]
    assert [str(link) for file, link in links if not (file.parent / link).exists()] == []
