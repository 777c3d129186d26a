"""A report as a browser's parser sees it."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Tags, words, scripts and data of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self._goes_on = False  # a word that may break there
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))
        self.data = json.loads(self.unpacked("data"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "wbr":
            self._goes_on = True
            return
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._open[-1:] != ["style"]:
            if self._goes_on:
                data = self.words.pop() + data
            self.words.append(data)
        self._goes_on = False

    def unpacked(self, name: str) -> str:
        """What lies packed in the page, the figures' data or their library."""
        packed = next(body for attributes, body in self.scripts if attributes.get("id") == name)
        return gzip.decompress(base64.b64decode(packed)).decode("utf-8")

    def slots(self) -> Iterator[tuple[str, str]]:
        """Every figure that a reader can call up, with the choices that show it."""
        section: dict[str, list[str]] = {}
        chooses: list[tuple[str, str, dict[str, list[str]]]] = []
        for tag, attributes in self.tags:
            if tag == "section":
                section = {}
            if tag == "input" and attributes["type"] == "radio":
                section.setdefault(str(attributes["name"]), []).append(str(attributes["value"]))
            if tag == "div" and "data-slot" in attributes:
                chooses.append((str(attributes["data-slot"]), attributes.get("data-by") or "", section))
        for slot, by, options in chooses:
            names = by.split()
            times = [{key.split("|")[i] for key in self.data["figures"][slot]} for i in range(len(names))]
            each = (sorted(times[i]) if name == "t" else options[name] for i, name in enumerate(names))
            for choice in itertools.product(*each):
                yield slot, "|".join(choice)
