"""What documents show, block by block, and how a page is run from its first block to its last.

A block of commands or of Python is run, unless ``<!-- not run: why -->`` stands on the line before it; then its
commands are parsed and its Python compiled only. ``<!-- hidden`` ... ``-->`` holds Python that is run and not shown. A
block with ``title="name"`` is a file that lies in the folder. Blocks in any other language are data.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PATTERN = re.compile(
    r"(?:^<!-- not run: (?P<why>.+?) -->\n)?^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$"
    r"|^<!-- hidden\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block of a page; ``why_not`` says why it is not run."""

    language: str
    text: str
    why_not: str = ""
    file: str = ""

    @property
    def _lines(self) -> list[str]:
        return [] if self.language else self.text.replace("\\\n", "").splitlines()

    @property
    def commands(self) -> list[list[str]]:
        """What is typed behind ``featdyn`` in a block of commands, quotes as they are."""
        parts = (part for line in self._lines for part in re.split(r"; (?=featdyn)|&& ", line))
        return [shlex.split(part, comments=True, posix=False)[1:] for part in parts if part.startswith("featdyn ")]

    @property
    def others(self) -> list[str]:
        """Lines of a block of commands that are none of featdyn's."""
        return [line for line in self._lines if line.strip() and not line.startswith(("featdyn ", "#"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order."""
    for found in PATTERN.finditer(page.read_text(encoding="utf-8")):
        if found["hidden"] is not None:
            yield Block("python", found["hidden"])
            continue
        language, _, rest = found["info"].partition(" ")
        title = re.search(r'title="(.+?)"', rest)
        yield Block(language, found["text"], found["why"] or "", title[1] if title else "")


def words(command: list[str]) -> list[str]:
    """Return what a shell gives to the program: outside of quotes variables have values, patterns are the files."""
    found = ([shlex.split(part)[0]] if part[0] in "'\"" else _expanded(part) for part in command)
    return [word for several in found for word in several]


def _expanded(word: str) -> list[str]:
    word = os.path.expandvars(word)
    return sorted(glob.glob(word)) or [word]


def run(page: Path, folder: Path, featdyn: Callable[..., tuple[int, str, str]]) -> None:
    """Run a page in a folder, the current one: all that fails, fails here."""
    names: dict[str, Any] = {}
    sys.path.insert(0, str(folder))
    before = set(sys.modules)
    try:
        for block in blocks(page):
            if block.file:
                (folder / block.file).write_text(block.text, encoding="utf-8")
            elif block.why_not:
                continue
            elif block.language == "python":
                exec(compile(block.text, page.name, "exec"), names)
            for command in block.commands:
                code, _, err = featdyn(*words(command))
                assert code == 0, f"featdyn {' '.join(command)}: {err}"
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:  # files of this page: another has its own of the same name
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
                del sys.modules[name]
