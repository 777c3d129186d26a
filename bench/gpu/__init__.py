"""The parts of ``python -m bench.gpu_validate``: each module has ``rows(device, seconds)``, which yields what it found.

A row is a dict of what JSON can say: ``what`` names it, ``ok`` is True, False, or None where nothing was decided, and
``note`` says the rest in words.
"""
