"""What goes with being the better response besides being better: length, style, first words."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, rankdata

from hf_align.data.inspection.findings import Found, Kind
from hf_align.data.inspection.histogram import histogram
from hf_align.data.inspection.margin import Margin
from hf_align.data.inspection.preferences import ranks_in
from hf_align.data.inspection.records import Context, Record
from hf_align.data.inspection.style import TRAITS, opening_of, traits_of
from hf_align.statistics import Interval, pearson, resampled_share

SECTION = "margins"
LENGTH_BIAS = Kind(
    "length_bias",
    SECTION,
    "warning",
    "Compare the trained model at equal length, and balance the pairs if length isn't what people asked for.",
)
STYLE = Kind(
    "style",
    SECTION,
    "note",
    "Decide whether the model is meant to learn it; if not, balance the pairs that differ in it.",
)
OPENING = Kind(
    "opening",
    SECTION,
    "warning",
    "A model can tell these responses by their first words alone: cut the words, or drop the pairs.",
)
KINDS = (LENGTH_BIAS, STYLE, OPENING)

NOTABLE = 0.05
"""Least distance of a share from .5, or of two shares from each other, that is a finding."""
FEWEST_PROMPTS = 10
"""Fewest prompts to draw by prompt; below it, rows are drawn."""
FEWEST_OPENINGS = 20
"""Fewest pairs of which one response begins with certain words."""
TELLING = 0.8
"""Share of such pairs in which it is the better (or the worse) one from which the words give it away."""
LEVEL = 0.05
"""Level of all tests together (Holm, 1979)."""
RATIOS = (1.0, 1.1, 1.25, 1.5, 2.0, 4.0, math.inf)
"""Bins of how many times as long the longer response is."""


@dataclass(frozen=True)
class _Sides:
    """The better and the worse response of each row that has them, `[R]` or `[R, 2]`."""

    rows: NDArray[np.int64]
    unit: NDArray[np.intp]
    lengths: NDArray[np.int32]
    traits: NDArray[np.uint16]
    openings: NDArray[np.uint64]
    margins: NDArray[np.float32]


class Bias:
    """Compares the better with the worse response of each row, of a ranking the best with the worst.

    Pairs of one prompt depend on each other, so intervals draw prompts and tests count each prompt once.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._margin = context, Margin(context.columns)
        self._rows, self._lengths, self._traits, self._margins = array("q"), array("i"), array("H"), array("f")
        self._prompts, self._openings = bytearray(), bytearray()

    def see(self, records: Sequence[Record]) -> None:
        """Take in the next rows."""
        for record in records:
            ranks = ranks_in(record) if record.read is not None else (0,)
            if min(ranks) == max(ranks):
                continue
            self._rows.append(record.number)
            self._prompts += _hash(record.prompt)
            self._margins.append(self._margin.of(record))
            for rank in (min(ranks), max(ranks)):
                text = record.responses[ranks.index(rank)]
                self._lengths.append(len(text))
                self._traits.append(traits_of(text))
                opening = opening_of(text)
                self._openings += _hash(opening) if opening else bytes(8)

    def finish(self) -> Found:
        """Figures, and what differs by more than chance."""
        if not self._rows:
            return Found({"pairs_compared": 0})
        _, unit = np.unique(np.frombuffer(self._prompts, np.uint64), return_inverse=True)
        rows = np.frombuffer(self._rows, np.int64)
        by_prompt = int(unit.max()) + 1 >= FEWEST_PROMPTS
        sides = _Sides(
            rows,
            unit if by_prompt else np.arange(len(rows)),
            np.frombuffer(self._lengths, np.int32).reshape(-1, 2),
            np.frombuffer(self._traits, np.uint16).reshape(-1, 2),
            np.frombuffer(self._openings, np.uint64).reshape(-1, 2),
            np.frombuffer(self._margins, np.float32),
        )
        found = Found({"pairs_compared": len(rows), "drawn": "prompts" if by_prompt else "rows"})
        for part in (_length(sides, self._context.seed), _style(sides), self._opening(sides)):
            found.metrics |= part.metrics
            found.findings += part.findings
        return found

    def _opening(self, sides: _Sides) -> Found:
        """First words that tell which response is the better one."""
        openings = sides.openings
        alone = openings[:, 0] != openings[:, 1]
        words, first, number = np.unique(openings[alone], return_index=True, return_inverse=True)
        number = number.ravel()  # of the better and the worse response in turn
        is_better = np.tile([True, False], len(number) // 2)
        counts, better = np.bincount(number), np.bincount(number, is_better)
        often = (counts >= FEWEST_OPENINGS) & (words != 0)
        place = np.cumsum(often) - 1
        taken = often[number]
        p_values = sign_tests(
            np.where(is_better, 1, -1)[taken], np.repeat(sides.unit[alone], 2)[taken], place[number[taken]]
        )
        telling = []
        for word, sure in zip(np.flatnonzero(often).tolist(), holm(p_values), strict=True):
            share, where = float(better[word] / counts[word]), int(first[word])
            if sure and max(share, 1 - share) >= TELLING:
                row = int(sides.rows[alone][where // 2])
                record = self._context.fetch([row])[0]
                ranks = ranks_in(record)
                text = record.responses[ranks.index(max(ranks) if where % 2 else min(ranks))]
                telling.append({"words": opening_of(text), "pairs": int(counts[word]), "better": share, "row": row})
        telling.sort(key=lambda each: -each["pairs"])
        found = Found({"openings": {"tested": len(p_values), "telling": telling}})
        if telling:
            said = "; ".join(
                f"{each['words']!r}: better in {each['better']:.0%} of {each['pairs']:,}" for each in telling[:5]
            )
            message = f"First words give away which response is the better one: {said}."
            found.findings.append(OPENING.found((), message, example=f"row {telling[0]['row']}"))
        return found


def _length(sides: _Sides, seed: int) -> Found:
    better, worse = sides.lengths.T.astype(float)
    differ = better != worse
    longer = (better > worse)[differ]
    share, interval = resampled_share(longer, sides.unit[differ], seed=seed)
    ratio = np.maximum(better, worse) / np.maximum(np.minimum(better, worse), 1)
    bins = []
    for low, high in pairwise(RATIOS):
        inside = differ & (ratio >= low) & (ratio < high)
        part, ends = resampled_share((better > worse)[inside], sides.unit[inside], seed=seed)
        bins.append(
            {
                "from": low,
                "to": None if math.isinf(high) else high,
                "pairs": int(inside.sum()),
                "longer_better": part,
                "interval": ends,
            }
        )
    figures: dict[str, Any] = {
        "longer_better": share,
        "interval": interval,
        "pairs": int(differ.sum()),
        "mean_characters": {"better": float(better.mean()), "worse": float(worse.mean())},
        "by_ratio": bins,
        "differences": histogram(better - worse),
        "lengths": histogram(better, worse),
        "margin_correlation": _rank_correlation(better - worse, sides.margins, len(np.unique(sides.unit))),
    }
    found = Found({"length": figures})
    low, high = interval
    which = "longer"
    if share < 0.5:
        which, share, low, high = "shorter", 1 - share, 1 - high, 1 - low
    if share - 0.5 >= NOTABLE and low > 0.5:
        message = (
            f"The {which} response is the better one in {share:.1%} of {differ.sum():,} pairs of unequal length (95% "
            f"interval {low:.1%} to {high:.1%}); better ones have {better.mean():,.0f} characters on average, worse "
            f"ones {worse.mean():,.0f}."
        )
        found.findings.append(LENGTH_BIAS.found((), message))
    return found


def _style(sides: _Sides) -> Found:
    shares: dict[str, list[float]] = {}
    tests: list[float] = []
    for bit, name in enumerate(TRAITS):
        has = (sides.traits >> bit & 1).astype(int)
        tests += sign_tests(has[:, 0] - has[:, 1], sides.unit)
        shares[name] = has.mean(axis=0).tolist()
    sure = holm(tests)
    table = {
        name: {"better": better, "worse": worse, "p": p, "differs": differs}
        for (name, (better, worse)), p, differs in zip(shares.items(), tests, sure, strict=True)
    }
    found = Found({"style": table})
    notable = [name for name, each in table.items() if each["differs"] and _gap(each) >= NOTABLE]
    if notable:
        notable.sort(key=lambda name: -_gap(table[name]))
        said = ", ".join(f"{name} ({table[name]['better']:.0%} and {table[name]['worse']:.0%})" for name in notable)
        found.findings.append(STYLE.found((), f"Better and worse responses differ in their shares of {said}."))
    return found


def _gap(shares: dict[str, Any]) -> float:
    return abs(shares["better"] - shares["worse"])


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of several tests hold at a level for all together (Holm, 1979).

    Example:
        >>> from hf_align.data.inspection.bias import holm
        >>> holm([0.01, 0.04, 0.03])
        [True, False, False]
    """
    holds = [False] * len(p_values)
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[number] > level / (len(p_values) - place):
            break
        holds[number] = True
    return holds


def sign_tests(lead: NDArray[Any], unit: NDArray[np.intp], group: NDArray[np.intp] | None = None) -> list[float]:
    """Exact sign tests on the sums of leads of each unit; with one row a unit it is McNemar's test.

    Args:
        lead: `[N]` leads, such as 1, 0 and -1.
        unit: `[N]` number of each row's unit.
        group: `[N]` number of the test that a row belongs to, from 0 without gaps. Default: one test.

    Returns:
        Two-sided p of each test.

    Example:
        >>> import numpy as np
        >>> from hf_align.data.inspection.bias import sign_tests
        >>> sign_tests(np.array([1, 1, 1, 1, -1]), np.arange(5))
        [0.375]
    """
    groups = np.zeros(len(lead), np.intp) if group is None else group
    if not len(groups):
        return [] if group is not None else [1.0]
    _, first, number = np.unique(groups * (unit.max() + 1) + unit, return_index=True, return_inverse=True)
    sums, of = np.bincount(number, lead), groups[first]
    count = int(groups.max()) + 1
    above, below = (np.bincount(of[sign * sums > 0], minlength=count) for sign in (1, -1))
    # At p = .5 both tails are alike; without any lead it is 1.
    return np.minimum(1.0, 2 * binom.cdf(np.minimum(above, below), above + below, 0.5)).tolist()


def _rank_correlation(one: NDArray[Any], two: NDArray[Any], units: int) -> dict[str, Any] | None:
    """Spearman's rho with its interval (Bonett and Wright, 2000), rows of one unit taken as one; None without order."""
    known = np.isfinite(one) & np.isfinite(two)
    if known.sum() < 4 or np.ptp(one[known]) == 0 or np.ptp(two[known]) == 0:
        return None
    rho = float(pearson(rankdata(one[known]), rankdata(two[known])))
    half = 1.96 * math.sqrt((1 + rho**2 / 2) / max(min(units, int(known.sum())) - 3, 1))
    middle = math.atanh(max(min(rho, 0.999999), -0.999999))
    interval: Interval = [math.tanh(middle - half), math.tanh(middle + half)]
    return {"rho": rho, "interval": interval}


def _hash(text: str) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
