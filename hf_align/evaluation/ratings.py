"""Scorers of texts (a reward model, a lexicon, one person) compared with the ratings of many people."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import ArrayLike, NDArray

from hf_align.collators.checks import read_rows
from hf_align.collators.rows import RowProblem, Side, read_prompt, read_side
from hf_align.errors import UserError
from hf_align.evaluation.rows import domains_of
from hf_align.evaluation.scorers import score_responses
from hf_align.models.reward import RewardModel
from hf_align.progress import Progress, Silent
from hf_align.statistics import bootstrap_interval, groups, pearson

HUMAN = "single human"
"""Name of the row for one rater against the mean of the others."""
REWARD_MODEL = "reward model"


def measure_on_ratings(
    model: RewardModel, rows: Dataset, *, resamples: int = 2000, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Agreement of a reward model with people's ratings.

    Args:
        model: The reward model.
        rows: Columns `prompt`, `response` and either `ratings` (one per person, at least two) or `rating`; optionally
            `domain`.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.
        progress: Receiver of progress. Default: none.

    Returns:
        "texts", and as "report" the result of `rating_report`; with one rating per text only over all domains and
        without a single person.

    Raises:
        UserError: A row can't be used.
    """
    several = "ratings" in rows.column_names
    prompts, responses, ratings = zip(
        *read_rows(rows.with_format(None), _read_votes if several else _read_rating, "data"), strict=True
    )
    scores = score_responses(model, prompts, responses, progress or Silent())
    if several:
        return {
            "texts": len(rows),
            "report": rating_report({REWARD_MODEL: scores}, ratings, domains_of(rows), resamples=resamples, seed=seed),
        }
    accuracy, pairs = pair_accuracy(scores, ratings, min_gap=0.0)
    entry = {
        "r": float(pearson(scores, ratings)),
        "r_interval": bootstrap_interval(pearson, scores, ratings, resamples=resamples, seed=seed),
        "pair_accuracy": accuracy,
    }
    overall = {"texts": len(rows), "pairs": pairs, "scorers": {REWARD_MODEL: entry}}
    return {"texts": len(rows), "report": {"all": overall}}


def _read_rating(row: dict[str, Any]) -> tuple[Side, Side, float]:
    if not _is_number(row["rating"]):
        raise RowProblem("no rating that is a number")
    return read_prompt(row), read_side(row, "response"), row["rating"]


def _read_votes(row: dict[str, Any]) -> tuple[Side, Side, list[float]]:
    votes = row["ratings"] if isinstance(row["ratings"], list) else [row["ratings"]]
    if not votes or not all(map(_is_number, votes)):
        raise RowProblem("no ratings that is a number")
    if len(votes) < 2:
        raise RowProblem("fewer than two ratings (with one per row, call the column rating)")
    return read_prompt(row), read_side(row, "response"), votes


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def pair_accuracy(scores: ArrayLike, human: ArrayLike, *, min_gap: float = 0.5) -> tuple[float, int]:
    """Share of pairs that the scores rank as people do.

    All pairs of texts whose human means differ by more than `min_gap` count. A tie in the scores counts as half, as by
    chance.

    Args:
        scores: `[N]` scores, any unit.
        human: `[N]` mean human ratings.
        min_gap: Smallest difference of the human means, in rating points.

    Returns:
        The accuracy (NaN without pairs) and the number of pairs.
    """
    correct, pairs = _ordered_pairs(np.asarray(scores, dtype=float), np.asarray(human, dtype=float), min_gap)
    return (correct / pairs if pairs else float("nan")), pairs


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
        min_gap: See `pair_accuracy`.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        `{"all" | domain: {"texts", "pairs", "scorers": {name: {"r", "r_interval", "pair_accuracy", and, for the
        scorers after the first, "r_gain" (first minus this one) with "r_gain_interval"}}}}`; `scorers` holds
        `HUMAN` too, without intervals.

    Raises:
        UserError: Lengths differ, or a text has fewer than two ratings.
    """
    for name, values in {**scores, "domains": domains}.items():
        if len(values) != len(ratings):
            raise UserError(f"{name} has {len(values)} rows but ratings has {len(ratings)}; they must match row by row")
    short = next((row for row, values in enumerate(ratings) if len(values) < 2), None)
    if short is not None:
        raise UserError(f"ratings row {short} has fewer than two ratings; a rater is compared with the others")
    arrays = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    human = np.array([np.mean(row) for row in ratings])
    by_domain = groups(domains)
    report: dict[str, Any] = {}
    for label, rows in {"all": np.arange(len(human)), **by_domain}.items():
        blocks = list(by_domain.values()) if label == "all" else [rows]
        report[label] = {
            "texts": len(rows),
            "pairs": sum(pair_accuracy(human[block], human[block], min_gap=min_gap)[1] for block in blocks),
            "scorers": {
                **_scorers(arrays, human, rows, blocks, min_gap, resamples, seed),
                HUMAN: _single_rater(ratings, rows, blocks, min_gap),
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
    ratings: Sequence[Sequence[float]], rows: NDArray, blocks: Sequence[NDArray], min_gap: float
) -> dict[str, float]:
    votes, others = np.zeros(len(ratings)), np.zeros(len(ratings))
    correlations, accuracies = [], []
    for rater in range(min(len(ratings[row]) for row in rows)):
        for row in rows:
            votes[row] = ratings[row][rater]
            others[row] = (sum(ratings[row]) - votes[row]) / (len(ratings[row]) - 1)
        correlations.append(float(pearson(votes[rows], others[rows])))
        accuracies.append(_pooled(votes, others, blocks, min_gap))
    return {"r": float(np.mean(correlations)), "pair_accuracy": float(np.mean(accuracies))}
