"""``python -m featdyn`` is the command line."""

from featdyn.cli import main

main()
