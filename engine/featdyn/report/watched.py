"""A run that may still be written, as a page shows it: parts with tags, renewed at each commit."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from featdyn.errors import FeatdynError, first_line
from featdyn.report.page import Known, Part, page, parts, times
from featdyn.store import Run
from featdyn.store.locate import Store

EVERY = 1.0
"""Seconds between two looks at a folder; in a bucket, where each is a request that costs, ten times that."""
SHARE = 4
"""As many times what the last look took is waited before the next: looking takes a fifth of a processor at most."""


@dataclass(frozen=True)
class Shown:
    """What there is to see of one commit.

    Attributes
    ----------
    name, commit, checkpoints, steps : of the run
    parts : in their order
    tags : by part, another one where it is another
    problem : why the store cannot be read any more, empty where it can
    """

    name: str
    commit: int
    checkpoints: list[int]
    steps: list[int]
    parts: dict[str, Part]
    tags: dict[str, str]
    problem: str = ""

    @property
    def tag(self) -> str:
        """Another one for everything else that can be seen."""
        return _tag([self.commit, self.problem, list(self.tags.items())])

    def state(self) -> dict[str, Any]:
        """Return what a page asks for again and again."""
        return {"commit": self.commit, "problem": self.problem, "parts": list(self.tags.items())}

    def part(self, name: str) -> dict[str, Any]:
        """Return one part, with the checkpoints that its sliders are about."""
        found = self.parts[name]
        about = {"tag": self.tags[name], "checkpoints": self.checkpoints, "steps": self.steps}
        return {**about, "html": str(found.html), **found.data}

    def page(self) -> str:
        """Return the whole page."""
        return page(self.name, list(self.parts.values()), self.checkpoints, self.steps, self.tags)


class Watched:
    """A store that is looked at while it may be written, replaced or damaged.

    Raises
    ------
    StoreError
        It cannot be read at first; later that is a problem that :meth:`look` shows.
    """

    def __init__(self, store: Store) -> None:
        self._turn = threading.Lock()
        self._known = Known()
        run = Run(store)
        self._place = run.place
        self._every = EVERY * (10 if run.place.lasting else 1)
        self._commits, self._shown = run.commits, _show(run, self._known)
        self._next = time.monotonic() + self._every

    def look(self) -> Shown:
        """Return what there is to see now; who comes while another one looks gets what was there before."""
        if time.monotonic() < self._next or not self._turn.acquire(blocking=False):
            return self._shown
        try:
            begun = time.monotonic()
            try:
                self._renew(Run(self._place))
            except Exception as error:  # of any kind: the store may be half removed, or damaged anywhere
                said = str(error) if isinstance(error, FeatdynError) else first_line(error)
                self._shown = replace(self._shown, problem=said)
            ended = time.monotonic()
            self._next = ended + max(self._every, SHARE * (ended - begun))
        finally:
            self._turn.release()
        return self._shown

    def _renew(self, run: Run) -> None:
        before = len(self._commits)
        is_same = len(run.commits) >= before and run.commits[before - 1].document == self._commits[-1].document
        if is_same and len(run.commits) == before:
            self._shown = replace(self._shown, problem="")
            return
        if not is_same:  # another run in its place, or one whose last commits were dropped
            self._known = Known()
        self._shown = _show(run, self._known)
        self._commits = run.commits


def _show(run: Run, known: Known) -> Shown:
    found = {part.name: part for part in parts(run, known)}
    checkpoints, steps = times(run)
    tags = {name: _tag([part.html, part.data]) for name, part in found.items()}
    return Shown(run.name, run.commits[-1].number, checkpoints, steps, found, tags)


def _tag(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:20]
