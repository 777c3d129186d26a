"""The training stage: recipes, the loop, exact resume."""

from featdyn.training.recipe import Recipe, load, shipped

__all__ = ["Recipe", "load", "shipped"]
