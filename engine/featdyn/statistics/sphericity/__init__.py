"""Is a covariance a multiple of the identity? One function a test, all from one Gram matrix.

``f(x, *, center="estimated", rng=None) -> TestResult``, with ``x`` an array (n draws, p coordinates), a
:class:`~featdyn.statistics.gram.Gram`, or ``gram.about(center)``, which also shares the eigenvalues. ``S = X'X / m`` of
the draws about their mean (``center="estimated"``, m = n - 1) or about zero (``"known"``, m = n). All reject for large
statistics, and raise ``ValueError`` for draws that are not finite or do not vary. ``rng`` is used by
:func:`exact_norm_conditional` alone.
"""

from featdyn.statistics.sphericity.classical import corrected_lrt, john, mauchly
from featdyn.statistics.sphericity.highdim import chen_zhang_zhong, fisher, ledoit_wolf, quasi_lrt, srivastava, wang_yao
from featdyn.statistics.sphericity.largest_root import largest_root
from featdyn.statistics.sphericity.signs import exact_norm_conditional, sign_test

__all__ = [
    "chen_zhang_zhong",
    "corrected_lrt",
    "exact_norm_conditional",
    "fisher",
    "john",
    "largest_root",
    "ledoit_wolf",
    "mauchly",
    "quasi_lrt",
    "sign_test",
    "srivastava",
    "wang_yao",
]
