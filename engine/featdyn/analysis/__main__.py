"""``python -m featdyn.analysis [FILE]``: print the table of analyses, or bring a document's up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from featdyn.analysis.registry import analyses
from featdyn.analysis.table import markdown, replaced


def main() -> None:
    """Run it: other packages' analyses are in what is printed, not in a document."""
    if len(sys.argv) < 2:
        print(markdown(analyses().values()))
        return
    document = Path(sys.argv[1])
    own = [analysis for analysis in analyses().values() if analysis.module.startswith("featdyn.")]
    document.write_text(replaced(document.read_text(encoding="utf-8"), markdown(own)), encoding="utf-8")


if __name__ == "__main__":
    main()
