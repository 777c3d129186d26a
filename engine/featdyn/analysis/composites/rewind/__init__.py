"""``rewind``: which layers can be put back to an earlier checkpoint while all others stay?"""

from __future__ import annotations

from pydantic import Field

from featdyn.analysis.declaration import SHARE, SIGNED, Analysis, Variable, bounded
from featdyn.analysis.options import Cuts, Sets, Suffixes

CELLS = "segment set t1 t2"


class RewindOptions(Cuts, Sets, Suffixes):
    """Options of the composites of three segments."""

    cuts: tuple[str, ...] = Field(
        ("all",), min_length=1, description="where layers end: cut names or patterns, 'default' or 'all'"
    )


ANALYSIS = Analysis(
    name="rewind",
    question="which layers can be put back to an earlier checkpoint while all others stay?",
    source="Composites of three segments: everything from checkpoint t2, one piece between two neighbouring cuts from "
    't1; the last piece, behind the last cut, is called "head", or "behind" and the '
    'name of that cut where a cut has this name. Zhang, Bengio, Singer, "Are all layers created '
    'equal?", JMLR 2022, do this with one layer of the final network.',
    options=RewindOptions,
    needs=frozenset({"network", "labels"}),
    variables={
        "without_prediction": Variable(
            CELLS, "probes without a prediction, as a logit is NaN: left out of accuracy, agreement and drop"
        ),
        **bounded("accuracy", CELLS, "share of right probes", valid_range=SHARE, status="status"),
        "agreement": Variable(
            CELLS, "share of probes predicted as by t2's own network", valid_range=SHARE, status="paired_status"
        ),
        **bounded(
            "drop",
            CELLS,
            "accuracy of t2's own network minus that of the composite",
            valid_range=SIGNED,
            status="paired_status",
        ),
    },
    compute="featdyn.analysis.composites.rewind.compute:rewind",
    section="featdyn.report.sections.rewind:section",
    streams=True,
    version=4,
)
