"""How far two samples of the same lie apart."""

from __future__ import annotations

import math

from scipy import stats

# One column in a thousand is called shifted by chance.
_CHANCE = 0.999


def divergence_by_chance(values: int, before: int, after: int) -> float:
    """What the Jensen-Shannon divergence of two samples from one source stays below, in 999 of 1,000 cases, in bits.

    The divergence times 8 ln 2 / (1/n + 1/m) follows chi-square with one degree of freedom less than values.

    Args:
        values: how many different values, or bins, there are.
        before: the size of the one sample, 1 at least.
        after: of the other.
    """
    return float(stats.chi2.ppf(_CHANCE, max(1, values - 1)) * (1 / before + 1 / after) / (8 * math.log(2)))
