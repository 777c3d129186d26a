"""What eigh says when it had to work harder."""

from __future__ import annotations

import warnings


class PrecisionWarning(UserWarning):
    """A matrix did not converge in the precision it came in and was solved again in float64."""


def warn_of_retry(failed: int, shape: tuple[int, ...], dtype: str) -> None:
    """Tell the caller of the public function, three frames above."""
    message = f"{failed} of {shape[0]} matrices of shape {shape[1:]} did not converge in {dtype}: "
    warnings.warn(message + "solved again in float64", PrecisionWarning, stacklevel=4)
