"""What the solvers share: step sizes, and how often they are looked at.

Swept on this set of tables with n = 10, to a gap of 1 %: four sparse models with noise 0.02 (bounds 0.04 to 0.06), the
same without bound, three random ReLU networks, white noise. Iterations added over the set: relaxation 1 3840, 1.5 3180,
1.7 3120, 1.9 3340; coefficient step 0.4 to 1 and slack step 0.1 to 0.3 within 5 %, twice as far 20 % worse; a first
step ten times larger or smaller 5 % worse; checks every 10, 20 and 40 iterations 2670, 2900 and 3280 (a check costs as
much as an iteration).
"""

from __future__ import annotations

from typing import Any

import numpy as np

RELAXATION = 1.7  # of the fixed-point step, below 2
CHECK = 20  # iterations between looks at the gap and the steps
COEFFICIENT_STEP = 0.7  # times mean |coefficient| over mean |reduced price|
SLACK_STEP = 0.15  # times mean |slack| over mean |price|
FIRST_STEP = 0.01  # times the largest |v - v(empty set)|
STEP_RANGE = 100.0  # steps stay within this factor of the first: without a bound the slack's would reach zero
ADAPTING = 1000  # iterations after which steps stay as they are, since convergence is proven for constant ones


def rounding(n: int, dtype: Any) -> float:
    """Return the L1 that rounding alone makes in tables of n variables whose values span 1."""
    return float((1.0 + 2.0**0.5) ** n * np.finfo(dtype).eps)
