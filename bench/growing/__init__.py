"""The parts of ``python -m bench.growth``."""
