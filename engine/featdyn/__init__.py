"""featdyn: record what happens inside a network while it trains, and ask questions about it afterwards."""

from featdyn.errors import FeatdynError

__version__ = "0.1.0"
__all__ = ["FeatdynError", "__version__"]
