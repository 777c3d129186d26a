"""Questions to a run that need no analysis: select by coordinates, reduce over axes, get a table."""

from featdyn.query.frame import query
from featdyn.query.render import render

__all__ = ["query", "render"]
