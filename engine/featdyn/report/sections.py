"""Which results have a section on the page, in its order."""

from __future__ import annotations

from featdyn.report import directions, kinds
from featdyn.report.density import density
from featdyn.report.drift import drift
from featdyn.report.isotropy import isotropy
from featdyn.report.memory import memory
from featdyn.report.section import Section
from featdyn.store import Run

SECTIONS = (
    memory, drift, kinds.controls, kinds.batchnorm, kinds.rewind, density, directions.spectra, isotropy,
    directions.layer_isotropy,
)  # fmt: skip


def sections(run: Run) -> list[Section]:
    """Return the sections of all results that the run holds."""
    return [section for make in SECTIONS if (section := make(run)) is not None]
