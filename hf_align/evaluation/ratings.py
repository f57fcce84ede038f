"""Scorers of texts (a reward model, a lexicon, one person) compared with the ratings of many people."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_align.collators.rows import Side, key_of
from hf_align.errors import UserError
from hf_align.statistics import bootstrap_interval, groups, pearson

HUMAN = "single human"
"""Name of the row for one rater against the mean of the others."""


def pair_accuracy(
    scores: ArrayLike, human: ArrayLike, *, min_gap: float = 0.5, prompts: Sequence[Side] | None = None
) -> tuple[float, int]:
    """Share of pairs that the scores rank as people do.

    All pairs of texts whose human means differ by more than `min_gap` count. A tie in the scores counts as half, as by
    chance.

    Args:
        scores: `[N]` scores, any unit.
        human: `[N]` mean human ratings.
        min_gap: Smallest difference of the human means, in rating points.
        prompts: `[N]` prompts of the texts; pairs are then those of one prompt.

    Returns:
        The accuracy (NaN without pairs) and the number of pairs.
    """
    values, target = np.asarray(scores, dtype=float), np.asarray(human, dtype=float)
    blocks = _by_prompt(np.arange(len(target)), prompts)
    pairs = sum(_ordered_pairs(target[block], target[block], min_gap)[1] for block in blocks)
    return _pooled(values, target, blocks, min_gap), pairs


def _by_prompt(rows: NDArray, prompts: Sequence[Side] | None) -> list[NDArray]:
    """Split rows into those of one prompt, whose texts are paired with each other; without prompts that is all."""
    if prompts is None:
        return [rows]
    blocks: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        blocks[key_of(prompts[row])].append(row)
    return [np.asarray(block) for block in blocks.values()]


def _ordered_pairs(scores: NDArray, human: NDArray, min_gap: float) -> tuple[float, int]:
    wide = human[:, None] - human[None, :] > min_gap
    # np.sign gives 1 for the human order, 0 for a tie and -1 for the reverse: 1, 1/2 and 0 points.
    points = (np.sign(scores[:, None] - scores[None, :])[wide] + 1) / 2
    return float(points.sum()), int(wide.sum())


def rating_report(
    scores: Mapping[str, Sequence[float]],
    ratings: Sequence[Sequence[float]],
    domains: Sequence[str],
    *,
    prompts: Sequence[Side] | None = None,
    min_gap: float = 0.5,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare scorers, and a single person, with human ratings, per domain and overall.

    The single person is measured as one rater against the mean of that text's other raters. Texts have different
    raters, so "rater j" is the j-th rating of every text; figures are averages over all j.

    Args:
        scores: Scorer's name to its `[N]` scores. The first one is compared with every other (`r_gain`).
        ratings: N lists of individual ratings, at least two each.
        domains: `[N]` domain of every text. Pairs are made within a domain only; the overall r is over all texts.
        prompts: `[N]` prompts of the texts; pairs are then those of one prompt. Default: pairs across prompts.
        min_gap: See `pair_accuracy`.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        `{"all" | domain: {"texts", "pairs", "scorers": {name: {"r", "r_interval", "pair_accuracy", and, for the
        scorers after the first, "r_gain" (first minus this one) with "r_gain_interval"}}}}`; `scorers` holds
        `HUMAN` too, without "r_interval".

    Raises:
        UserError: Lengths differ, or a text has fewer than two ratings.
    """
    for name, values in {**scores, "domains": domains, "prompts": prompts or domains}.items():
        if len(values) != len(ratings):
            raise UserError(f"{name} has {len(values)} rows but ratings has {len(ratings)}; they must match row by row")
    short = next((row for row, values in enumerate(ratings) if len(values) < 2), None)
    if short is not None:
        raise UserError(f"ratings row {short} has fewer than two ratings; a rater is compared with the others")
    arrays = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    human = np.array([np.mean(row) for row in ratings])
    by_domain = groups(domains)
    blocks_of = {domain: _by_prompt(rows, prompts) for domain, rows in by_domain.items()}
    report: dict[str, Any] = {}
    for label, rows in {"all": np.arange(len(human)), **by_domain}.items():
        blocks = [block for part in blocks_of.values() for block in part] if label == "all" else blocks_of[label]
        report[label] = {
            "texts": len(rows),
            "pairs": sum(_ordered_pairs(human[block], human[block], min_gap)[1] for block in blocks),
            "scorers": {
                **_scorers(arrays, human, rows, blocks, min_gap, resamples, seed),
                HUMAN: _single_rater(
                    ratings, next(iter(arrays.values())), human, rows, blocks, min_gap, resamples, seed
                ),
            },
        }
    return report


def _scorers(
    scores: Mapping[str, NDArray],
    human: NDArray,
    rows: NDArray,
    blocks: Sequence[NDArray],
    min_gap: float,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    first = next(iter(scores.values()))[rows]
    target = human[rows]
    result: dict[str, dict[str, Any]] = {}
    for position, (name, values) in enumerate(scores.items()):
        picked = values[rows]
        entry: dict[str, Any] = {
            "r": float(pearson(picked, target)),
            "r_interval": bootstrap_interval(pearson, picked, target, resamples=resamples, seed=seed),
            "pair_accuracy": _pooled(values, human, blocks, min_gap),
        }
        if position:
            entry["r_gain"] = float(pearson(first, target) - pearson(picked, target))
            entry["r_gain_interval"] = bootstrap_interval(
                lambda a, b, human, axis: pearson(a, human, axis) - pearson(b, human, axis),
                *(first, picked, target),
                resamples=resamples,
                seed=seed,
            )
        result[name] = entry
    return result


def _pooled(scores: NDArray, human: NDArray, blocks: Sequence[NDArray], min_gap: float) -> float:
    counted = [_ordered_pairs(scores[block], human[block], min_gap) for block in blocks]
    pairs = sum(count for _, count in counted)
    return sum(correct for correct, _ in counted) / pairs if pairs else float("nan")


def _single_rater(
    ratings: Sequence[Sequence[float]],
    first: NDArray,
    human: NDArray,
    rows: NDArray,
    blocks: Sequence[NDArray],
    min_gap: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Figures of one rater against the others, and the lead of scores `first` `[N]` over that rater."""
    raters = min(len(ratings[row]) for row in rows)
    votes = np.array([[ratings[row][rater] for row in rows] for rater in range(raters)], dtype=float)  # [J, rows]
    total, count = (np.array([measure(ratings[row]) for row in rows]) for measure in (sum, len))
    others = (total - votes) / (count - 1)
    accuracies = []
    whole_votes, whole_others = np.zeros(len(ratings)), np.zeros(len(ratings))
    for vote, other in zip(votes, others, strict=True):
        whole_votes[rows], whole_others[rows] = vote, other
        accuracies.append(_pooled(whole_votes, whole_others, blocks, min_gap))

    def lead(scores: NDArray, human: NDArray, *people: NDArray, axis: int) -> Any:
        pairs = zip(people[:raters], people[raters:], strict=True)
        return pearson(scores, human, axis) - np.mean([pearson(*pair, axis) for pair in pairs], axis=0)

    samples = (first[rows], human[rows], *votes, *others)
    return {
        "r": float(np.mean(pearson(votes, others))),
        "pair_accuracy": float(np.mean(accuracies)),
        "r_gain": float(lead(*samples, axis=-1)),
        "r_gain_interval": bootstrap_interval(lead, *samples, resamples=resamples, seed=seed),
    }
