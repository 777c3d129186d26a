"""Pure functions on arrays, usable without a store."""
