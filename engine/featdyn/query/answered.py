"""What a run was asked: its newest results with their options, and what is missing in them and why."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from featdyn.analysis.status import meanings
from featdyn.query.age import behind
from featdyn.store import Run


def answered(run: Run) -> list[dict[str, Any]]:
    """Return name, path, question, options and missing cells of the newest result of each analysis.

    Options are JSON; ``behind`` says where the run has more checkpoints by now; ``missing`` says of each status
    variable how many of its cells are missing for what reason, and
    how many it has.
    """
    found = []
    for name in run.analyses:
        path = run.results(name)[-1]
        attributes = run.nodes[path].get("attributes", {})
        options, question = json.dumps(attributes.get("options", {})), str(attributes.get("question", ""))
        missing = "; ".join(_missing(run, path))
        found.append({"name": name, "path": path, "question": question, "options": options, "missing": missing})
        found[-1]["behind"] = behind(run, path)
    return found


def _missing(run: Run, path: str) -> list[str]:
    lines = []
    for node, document in run.nodes.items():
        if node.rpartition("/")[0] != path or "flag_meanings" not in document.get("attributes", {}):
            continue
        words, codes = meanings(document["attributes"]), np.asarray(run.values(node), int)
        counts = [(int((codes == code).sum()), reason) for code, reason in enumerate(words[1:], 1)]
        lines += [f"{node.rpartition('/')[2]}: {n:,} of {codes.size:,} {reason}" for n, reason in counts if n]
    return lines
