"""Texts that are always there: sentences of the documentation that four libraries ship, each with its library's name.

The task, which library a sentence documents, is our own: real English whose words tell more together than each alone,
without a download. What the sentences are depends on the libraries' versions, which a run's check sums remember.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from featdyn.data.images import Dataset, Images
from featdyn.data.order import key, random_order, stratified_order
from featdyn.errors import DataError

NAME = "docstrings"
FOLDERS = {
    "numpy": ("lib", "ma", "polynomial", "random"),
    "pandas": ("core",),
    "scipy": ("stats", "signal"),
    "torch": ("nn", "optim", "utils", "distributed"),
}
WORDS = 12
"""Of a text, the first of a sentence: our own choice."""
VOCABULARY = 1000
"""Numbers of words: 0 stands for a masked one, 1 for all that are rarer than the others. Our own choice."""
PER_CLASS, TEST = 600, 150
"""Texts of a class, and how many of these test: our own choice."""
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_END = re.compile(r"(?<=[.!?:])\s+|\n\s*\n")
_WORD = re.compile(r"[a-z]+")
_PROSE = re.compile(r"[A-Z][A-Za-z ,;'`*()-]+[.:!?]?")


def docstrings() -> Dataset:
    """Return the data set, ``(N, 12)`` numbers of words below :data:`VOCABULARY`: 450 sentences of each to train on.

    Raises :class:`DataError` where a library ships too few.
    """
    texts: list[list[str]] = []
    for package in FOLDERS:
        found = list(dict.fromkeys(_sentences(package)))
        if len(found) < PER_CLASS:
            raise DataError(f"{NAME}: {package} has {len(found)} sentences of {WORDS} words, {PER_CLASS} are needed")
        texts += [found[i].split() for i in np.sort(random_order(len(found), key(package))[:PER_CLASS])]
    labels = np.repeat(np.arange(len(FOLDERS)), PER_CLASS)
    order = stratified_order(labels, key(NAME))
    test, train = np.sort(order[: TEST * len(FOLDERS)]), np.sort(order[TEST * len(FOLDERS) :])
    seen = Counter(word for i in train for word in texts[i])
    common = sorted(seen, key=lambda word: (-seen[word], word))[: VOCABULARY - 2]
    numbers = {word: i for i, word in enumerate(common, 2)}
    words = np.array([[numbers.get(word, 1) for word in text] for text in texts], np.int64)
    return Dataset(
        NAME,
        Images(words[train], labels[train], NAME, "train"),
        Images(words[test], labels[test], NAME, "test"),
        tuple(FOLDERS),
    )


def _sentences(package: str) -> Iterator[str]:
    """Yield the first words of each long enough sentence of a library's docstrings, in the order of its files."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise DataError(f"{NAME}: {package} is not installed")
    folders = [Path(spec.origin).parent / inner for inner in FOLDERS[package]]
    for path in (path for folder in folders for path in sorted(folder.rglob("*.py"))):
        if "tests" in path.parts:
            continue
        for doc in _DOCSTRING.findall(path.read_text(encoding="utf-8")):
            for part in _END.split(doc):
                line = " ".join(part.split())
                words = _WORD.findall(line.lower())
                if len(words) >= WORDS and _PROSE.fullmatch(line):
                    yield " ".join(words[:WORDS])
