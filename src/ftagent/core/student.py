"""Student's t distribution, as far as intervals and paired tests need it."""

from __future__ import annotations

import math


def quantile_975(degrees: int) -> float:
    """97.5 % point of Student's t (Cornish–Fisher expansion, Abramowitz and Stegun 26.7.5; exact for 1 and 2)."""
    if degrees <= 2:
        return {0: 0.0, 1: 12.706204736, 2: 4.302652730}[max(degrees, 0)]
    z, n = 1.959963984540054, float(degrees)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / n + g2 / n**2 + g3 / n**3 + g4 / n**4


def two_sided_p(t: float, degrees: int) -> float:
    """Probability of a value at least as far from 0 as `t`, by the incomplete beta function (Abramowitz and Stegun
    26.7.1 and 26.5.8, with Lentz's continued fraction)."""
    if math.isinf(t):
        return 0.0
    a, b, x = degrees / 2, 0.5, degrees / (degrees + t * t)
    if x in (0.0, 1.0):
        return x
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return min(1.0, front * _fraction(a, b, x) / a)
    return min(1.0, max(0.0, 1.0 - front * _fraction(b, a, 1 - x) / b))


def _fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1.0 / ((1.0 - (a + b) * x / (a + 1)) or tiny)
    result = d
    for m in range(1, 400):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / ((1.0 + numerator * d) or tiny)
            c = (1.0 + numerator / c) or tiny
            result *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return result
