"""The report of a run: one HTML file that needs nothing else, not even a network."""

from featdyn.report.notebook import Plots as plots
from featdyn.report.page import write_report

__all__ = ["plots", "write_report"]
