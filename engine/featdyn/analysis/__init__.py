"""Questions about a run: each declared once, run by one driver, found by one registry. See DESIGN.md."""

from featdyn.analysis.declaration import Analysis, Variable
from featdyn.analysis.registry import analyses

__all__ = ["Analysis", "Variable", "analyses"]
