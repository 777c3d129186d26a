"""Questions to a run that need no analysis: select, reduce, group and sort; or ask in SQL."""

from featdyn.query.age import warnings
from featdyn.query.frame import ask, query
from featdyn.query.listing import variables
from featdyn.query.render import render

__all__ = ["ask", "query", "render", "variables", "warnings"]
