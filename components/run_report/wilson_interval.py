"""How sure a share is."""

from __future__ import annotations

import math

from components.run_report.interval import Interval

Z_95 = 1.959964


def wilson_interval(count: float, total: float) -> Interval | None:
    """The share `count / total` with Wilson's 95 % interval; None where `total` is 0.

    Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927. It stays within 0 and 1 and
    holds for small totals too.
    """
    if not total:
        return None
    share = count / total
    denominator = 1 + Z_95**2 / total
    centre = (share + Z_95**2 / (2 * total)) / denominator
    margin = Z_95 / denominator * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    return Interval(share, max(0.0, min(centre - margin, share)), min(1.0, max(centre + margin, share)))
