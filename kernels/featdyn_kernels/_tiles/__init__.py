"""Distance tiles that never leave the cache: what kde and pairwise are made of."""
