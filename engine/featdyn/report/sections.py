"""Which results have a section on the page, in its order."""

from __future__ import annotations

from featdyn.report import kinds
from featdyn.report.memory import memory
from featdyn.report.section import Section
from featdyn.store import Run

SECTIONS = (memory, kinds.controls, kinds.batchnorm, kinds.rewind)


def sections(run: Run) -> list[Section]:
    """Return the sections of all results that the run holds."""
    return [section for make in SECTIONS if (section := make(run)) is not None]
