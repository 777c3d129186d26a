"""What eigh says when it had to work harder."""


class PrecisionWarning(UserWarning):
    """A matrix did not converge in the precision it came in and was solved again in float64."""
