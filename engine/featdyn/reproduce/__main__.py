"""``python -m featdyn.reproduce DOCUMENT RESULTS.json``: bring the table of a study in a document up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from featdyn.reproduce.markdown import bring_up_to_date

if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give a document and a file of results: python -m featdyn.reproduce docs/found.md RESULTS.json")
    bring_up_to_date(Path(sys.argv[1]), Path(sys.argv[2]))
