"""Test of a judge who is asked in both orders: do its verdicts depend on the answers, or on their places alone?"""

from __future__ import annotations

import math


def follows_answers(kept: int, first_twice: int, second_twice: int) -> float:
    """Return the one-sided p-value of "the judge decides by place alone": small is evidence that answers matter.

    A judge that does not read the answers names the first place with some probability q, whatever stands there. Of the
    pairs whose two replies both name a winner it then keeps to one answer in 2 q (1 - q), at most one half, and names
    the first place twice in q^2. Given how often each place was named, the chance of as many kept pairs or more is
    exact and free of q: the same count as of heterozygotes in the test of Hardy-Weinberg proportions (Wigginton, Cutler
    & Abecasis 2005, eq. 2). Eight pairs that were all kept are the fewest with a p-value of 2.5% or below.

    Args:
        kept: pairs in which both replies name the same answer, in whichever place.
        first_twice: pairs in which both replies name the first place.
        second_twice: pairs in which both replies name the second place.
    """
    n = kept + first_twice + second_twice
    rarer = kept + 2 * min(first_twice, second_twice)
    weights = {count: _ways(count, n, rarer) for count in range(rarer % 2, min(rarer, 2 * n - rarer) + 1, 2)}
    top = max(weights.values())
    chances = {count: math.exp(weight - top) for count, weight in weights.items()}
    return min(1.0, sum(chance for count, chance in chances.items() if count >= kept) / sum(chances.values()))


def _ways(kept: int, n: int, rarer: int) -> float:
    """Return the log of the number of ways to get `kept` pairs of n if the rarer place was named `rarer` times."""
    twice = (rarer - kept) // 2
    return kept * math.log(2) - math.lgamma(twice + 1) - math.lgamma(kept + 1) - math.lgamma(n - kept - twice + 1)
