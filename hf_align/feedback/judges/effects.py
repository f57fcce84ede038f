"""What a judge says, and what besides quality sways it: the order of the responses, their lengths, who wrote them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from hf_align.collators.rows import text_of
from hf_align.data.comparisons import Comparisons
from hf_align.feedback.judges.asked import Asked, sides
from hf_align.pair_statistics import length_controlled
from hf_align.rewards.judges import TIE
from hf_align.statistics import Resampling

Figures = dict[str, Any]


def measure_verdicts(asked: Asked, resampling: Resampling) -> Figures:
    """How often a judge has an opinion, and how often that is a tie.

    Args:
        asked: A judge's opinions of pairs.
        resampling: Draws of its units.

    Returns:
        "pairs", and shares with intervals: "opinions" (of the pairs), "ties" and "flips" (of those with an opinion;
        a flip is a choice that changed with the order, and counts as a tie). "flips" is None for a judge that sees no
        order.
    """
    given = ~np.isnan(asked.preference)
    places = np.flatnonzero(given)
    result: Figures = {
        "pairs": len(given),
        **asked.share("opinions", given.astype(float), np.arange(len(given)), resampling),
    }
    ties = (asked.preference[places] == TIE).astype(float)
    result |= asked.share("ties", ties, places, resampling)
    if not asked.sees_order:
        return result | {"flips": None, "flips_interval": None}
    return result | asked.share("flips", asked.flipped[places].astype(float), places, resampling)


def measure_position(asked: Asked, resampling: Resampling) -> Figures:
    """How often a judge goes with the response shown first, before and after its two answers become one.

    Args:
        asked: A judge's opinions of pairs.
        resampling: Draws of its units.

    Returns:
        "sees_order". Before (None for a judge that sees no order): "first_shown", the share of answers for the response
        shown first, a tie half, over pairs answered in both orders ("pairs"), and "probability", the mean probability
        of that response. After: "first_given", the share of judgements for the response given first, over pairs given
        both ways ("pairs_again"; None without any). "effect" and "effect_after" are these shares less one half. Shares
        have their "..._interval".
    """
    result: Figures = {"sees_order": asked.sees_order, "pairs": None, "first_shown": None, "effect": None}
    if asked.sees_order:
        places = np.flatnonzero(~np.isnan(asked.shown))
        result["pairs"] = len(places)
        for name, values in (("first_shown", asked.shown), ("probability", asked.shown_probability)):
            result |= asked.share(name, values[places], places, resampling)
        result["effect"] = result["first_shown"] - 0.5
    places = np.flatnonzero(~np.isnan(asked.given))
    result |= {"pairs_again": len(places), "first_given": None, "effect_after": None}
    if len(places):
        result |= asked.share("first_given", asked.given[places], asked.again[places], resampling)
        result["effect_after"] = result["first_given"] - 0.5
    return result


def measure_judge_length(data: Comparisons, asked: Asked, resampling: Resampling) -> Figures | None:
    """What length, in characters, has to do with a judge's choice, beside people's.

    Over pairs of unequal lengths on which people are decided and the judge has an opinion; a judge's tie counts half.
    In the regression of agreement on the length of people's choice,

        P(agreement) = sigmoid(a + b tanh(d / sd(d)))

    d is by how many characters people's choice is longer (see `length_controlled`): what they prefer is the same for
    all pairs, so b is the pull of length alone, positive for a judge that likes long responses.

    Args:
        data: The pairs.
        asked: The judge's opinions of them.
        resampling: Draws of `asked`'s units.

    Returns:
        "pairs"; the share that prefers the longer: "judge", "people" and "excess" (judge - people), with intervals;
        "people_longer" and "people_shorter": "pairs" and "agreement" where people prefer the longer or the shorter
        response; "weight" (b) and "equal_length" (agreement at d = 0) with intervals, NaN where all are longer by the
        same. None without such pairs.
    """
    lengths = np.array([len(text_of(text.text)) for text in data.texts])[data.text_of]
    pairs = asked.pairs
    longer, better = (lengths[data.first] - lengths[data.second])[pairs], data.better[pairs]
    places = np.flatnonzero((longer != 0) & (better != 0) & ~np.isnan(asked.preference))
    if not len(places):
        return None
    longer, better, choice = longer[places], better[places], sides(asked.preference[places])
    by_judge = np.where(longer > 0, choice, 1 - choice)
    by_people = (longer * better > 0).astype(float)
    result: Figures = {"pairs": len(places)}
    for name, values in (("judge", by_judge), ("people", by_people)):
        result |= asked.share(name, values, places, resampling)
    result |= asked.excess(by_judge - by_people, places, resampling)
    agreed = np.where(better > 0, choice, 1 - choice)
    for name, part in (("people_longer", by_people == 1), ("people_shorter", by_people == 0)):
        result[name] = {"pairs": int(part.sum()), **asked.share("agreement", agreed[part], places[part], resampling)}
    other = None if asked.other is None else asked.other[places]
    fitted = length_controlled(agreed, (longer * better).astype(float), resampling, asked.unit[places], other)
    for name, of_fit in (("weight", "length_weight"), ("equal_length", "length_controlled")):
        result[name], result[f"{name}_interval"] = fitted[of_fit], fitted[f"{of_fit}_interval"]
    return result


def measure_self_preference(
    data: Comparisons, asked: Asked, own: Collection[str], resampling: Resampling
) -> Figures | None:
    """How often a judge prefers what it wrote itself, beside people's choice between the same responses.

    Args:
        data: The pairs, with who wrote each response.
        asked: The judge's opinions of them.
        own: Sources that are the judge itself.
        resampling: Draws of `asked`'s units.

    Returns:
        Over decided pairs of which it wrote one: "pairs", and the share for its own response: "judge", "people" and
        "excess" (judge - people), with intervals. None without such pairs.
    """
    pairs = asked.pairs
    is_own = np.array([source in own for source in data.sources])
    first, second, better = is_own[data.first[pairs]], is_own[data.second[pairs]], data.better[pairs]
    places = np.flatnonzero((first != second) & (better != 0) & ~np.isnan(asked.preference))
    if not len(places):
        return None
    choice = sides(asked.preference[places])
    by_judge = np.where(first[places], choice, 1 - choice)
    by_people = (np.where(first[places], 1, -1) * better[places] > 0).astype(float)
    result: Figures = {"pairs": len(places)}
    for name, values in (("judge", by_judge), ("people", by_people)):
        result |= asked.share(name, values, places, resampling)
    result |= asked.excess(by_judge - by_people, places, resampling)
    return result
