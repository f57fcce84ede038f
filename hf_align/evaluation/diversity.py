"""How much of what a policy writes repeats itself, within a response and across all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.statistics import Resampling

REPEATED = 3
"""Words of an n-gram whose repetition within a response is counted."""


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Share of distinct n-grams among all n-grams of all texts (Li et al., 2016); lower case, split at spaces.

    Returns:
        1 when no n-gram repeats, near 0 when the texts are all alike, NaN when no text has n words.
    """
    grams = [
        tuple(words[start : start + n])
        for words in (text.lower().split() for text in texts)
        for start in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repeated_share(text: str, n: int = REPEATED) -> float:
    """Share of a text's n-grams that stood in it before (rep-n: Welleck et al., 2020); lower case, split at spaces.

    Returns:
        0 when nothing repeats, near 1 for a loop; NaN for fewer than n words.
    """
    return 1 - distinct_n([text], n)


def measure_diversity(texts: Sequence[str], resampling: Resampling, unit: NDArray[np.intp]) -> dict[str, Any]:
    """Variety of a policy's responses.

    Args:
        texts: `[N]` its responses.
        resampling: Draws of prompts.
        unit: `[N]` the prompt of each.

    Returns:
        "distinct_1", "distinct_2", "distinct_3" (over all responses; without intervals, since a resample repeats
        responses, and so their n-grams), "self_repetition" (mean over responses of at least `REPEATED` words of the
        share of n-grams that stood in the same response before) with "self_repetition_interval", and "words" of all
        responses: the more words, the more n-grams repeat.
    """
    repeated = np.asarray([repeated_share(text) for text in texts])
    long = np.isfinite(repeated)
    share, interval = resampling.share(repeated[long], np.asarray(unit)[long])
    return {
        **{f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)},
        "self_repetition": share,
        "self_repetition_interval": interval,
        "words": sum(len(text.split()) for text in texts),
    }
