"""Recordings that other tools made, brought into a store: one file a format."""

from featdyn.capture.foreign.write import import_recording

__all__ = ["import_recording"]
