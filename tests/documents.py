"""What the documents tell people to type: blocks between fences, and the commands in them.

Covers: finding them. Neighbours: `repository/test_documents.py` (each is one that some test runs, and one that its
program takes), the tests named there (which run them).
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").rglob("README.md")])
COMMAND_LANGUAGES = ("", "sh", "console")


class Block(NamedTuple):
    """What stands between two fences, under which heading."""

    document: str
    """From the root."""
    heading: str
    language: str
    text: str

    def lines(self) -> list[str]:
        """Of commands, as they are typed: without prompt, each with the lines that continue it."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        return [line.removeprefix("$ ") for line in joined.splitlines() if line.strip()]

    def commands(self) -> list[list[str]]:
        """As the shell splits them."""
        return [shlex.split(line, comments=True) for line in self.lines()]


def blocks(document: Path) -> list[Block]:
    """In their order."""
    found: list[Block] = []
    heading, language, text = "", None, ""
    for line in document.read_text().splitlines(keepends=True):
        fence = re.match(r" *```(\w*)", line)
        if fence is not None and language is None:
            language, text = fence[1], ""
        elif fence is not None:
            found.append(Block(str(document.relative_to(ROOT)), heading, language or "", text))
            language = None
        elif language is not None:
            text += line
        elif line.startswith("#"):
            heading = line.lstrip("# ").strip()
    return found


def command_blocks(document: Path) -> list[Block]:
    """Those in which somebody is told to type something; pictures and what a command prints are marked `text`."""
    return [block for block in blocks(document) if block.language in COMMAND_LANGUAGES]
