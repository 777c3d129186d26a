"""Questions about several runs at once."""
