"""Run the command line from a bare checkout: ``python cli.py query ...``."""

import sys
from pathlib import Path

here = Path(__file__).parent
sys.path[:0] = [str(here / "engine"), str(here / "kernels")]

from featdyn.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
