"""Report on a reward model: whether its scores order, and say how sure they are, as people do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.rows import Side, text_of
from hf_align.errors import UserError
from hf_align.evaluation.accuracy import measure_accuracy
from hf_align.evaluation.comparisons import Comparisons
from hf_align.evaluation.reading import STYLES, read_comparisons
from hf_align.evaluation.scorers import CHUNK, to_gpu
from hf_align.models.reward import RewardModel
from hf_align.models.scorer import Scorer, load_scorer
from hf_align.progress import Progress, Silent
from hf_align.rewards import as_reward
from hf_align.statistics import Resampling

Score = Callable[[Sequence[Side], Sequence[Side], Sequence[Any]], Sequence[float]]
"""Scores of responses to prompts, with the rows' options for the chat template."""


class Remark(NamedTuple):
    """What a reader of the figures has to know: a kind, to look it up, and a sentence."""

    kind: str
    sentence: str


@dataclass
class RewardReport:
    """What `reward_report` measured.

    Attributes:
        metrics: Figures by section, in the report's order; None for a section that the data or the model can't fill.
        facts: The data and how it was measured: "layout", "rows", "prompts", "responses", "texts", "pairs",
            "across_prompts", "unit" (what the bootstrap draws), "units", "resamples", "seed", "length_unit", ...
        remarks: What to know before believing a figure.
    """

    metrics: dict[str, Any]
    facts: dict[str, Any]
    remarks: list[Remark]


def reward_report(
    model: Any,
    dataset: Any,
    *,
    judge: Any = None,
    across_prompts: bool = False,
    scores: Sequence[Any] | None = None,
    min_gap: float = 0.0,
    styles: tuple[str, ...] = STYLES,
    resamples: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> RewardReport:
    """Measure a reward model on people's preferences.

    Args:
        model: A `RewardModel`, a `Scorer`, the folder or Hub id of any reward model, any object with
            `score(prompts, responses)`, or a function as in `as_reward`; None with `scores`.
        dataset: Pairs, rankings, rated responses, or pairs in several styles; see `read_comparisons`.
        judge: An independent judge for best-of-n, as in `as_reward`. Default: people's scores, where rows have them.
        across_prompts: Compare rated responses to different prompts, too, within a subset. A reward model is trained to
            rank responses to one prompt; its scores of responses to another need not compare.
        scores: Stored scores instead of a model: for each row one number, or one for each of its responses (chosen
            before rejected). Without a model there is no robustness.
        min_gap: Pairs of people's scores that differ by no more are undecided.
        styles: Names of the styles, where rows have several.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of all draws.
        progress: Receiver of progress. Default: none.

    Raises:
        UserError: A row, the model or the judge can't be used.
    """
    if (model is None) == (scores is None):
        raise UserError("reward_report takes a model or stored scores; give one of the two.")
    progress = progress or Silent()
    data = read_comparisons(dataset, across_prompts=across_prompts, min_gap=min_gap, styles=styles, seed=seed)
    if not len(data.first):
        raise UserError(
            "data has no two responses to compare: rated responses are compared within a prompt, or with "
            "across_prompts=True within a subset."
        )
    model = to_gpu(load_scorer(model), None) if isinstance(model, str) else model
    given = _stored(scores, data) if scores is not None else score_texts_once(as_scorer(model), data, progress)
    resampling = Resampling(data.units, resamples=resamples, seed=seed)
    metrics = {"accuracy": measure_accuracy(data, given, resampling)}
    facts = {
        "layout": data.layout,
        "rows": len(np.unique(data.row_of)),
        "prompts": len(data.prompts),
        "responses": len(data.text_of),
        "texts": len(data.texts),
        "pairs": len(data.first),
        "across_prompts": across_prompts,
        "unit": data.unit,
        "units": data.units,
        "resamples": resamples,
        "seed": seed,
        "skipped": data.skipped,
    }
    return RewardReport(metrics, facts, _remarks(data, given))


def as_scorer(model: Any) -> Score:
    """One way to call every kind of model."""
    if isinstance(model, RewardModel | Scorer):
        return lambda prompts, responses, options: model.score(prompts, responses, rows=options)
    if hasattr(model, "score"):
        return lambda prompts, responses, options: model.score(prompts, responses)
    reward = as_reward(model)
    return lambda prompts, responses, options: reward(prompts, [text_of(text) for text in responses]).tolist()


def score_texts_once(score: Score, data: Comparisons, progress: Progress, label: str = "scoring") -> NDArray:
    """`[R]` scores of the entries, each distinct text scored once."""
    return score_all(score, data.texts, progress, label)[data.text_of]


def score_all(score: Score, texts: Sequence[Any], progress: Progress, label: str) -> NDArray[np.float64]:
    """`[N]` scores of responses, with a progress bar.

    Raises:
        UserError: A score is no finite number.
    """
    scores: list[float] = []
    with progress.task(label, len(texts)) as advance:
        for start in range(0, len(texts), CHUNK):
            part = texts[start : start + CHUNK]
            scores += map(
                float, score([each.prompt for each in part], [each.text for each in part], [e.options for e in part])
            )
            advance(len(scores), "")
    values = np.asarray(scores, dtype=float)
    if len(values) != len(texts):
        raise UserError(f"model gave {len(values)} scores for {len(texts)} responses; return one for each.")
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        raise UserError(f"model scores a response of row {texts[bad[0]].row} {values[bad[0]]}, not a finite number.")
    return values


def _stored(scores: Sequence[Any], data: Comparisons) -> NDArray[np.float64]:
    """`[R]` scores of the entries from one number or list for each row."""
    order = np.argsort(data.row_of, kind="stable")
    entries_of = np.split(order, np.flatnonzero(np.diff(data.row_of[order])) + 1)
    if len(scores) != len(entries_of):
        raise UserError(f"scores has {len(scores)} entries and data {len(entries_of)} rows; give one for each row.")
    values = np.empty(len(data.row_of))
    for row, (entries, given) in enumerate(zip(entries_of, scores, strict=True)):
        flat = np.ravel(np.asarray(given, dtype=float))
        if len(flat) != len(entries) or not np.isfinite(flat).all():
            raise UserError(f"scores: row {row} has {len(entries)} responses; give a finite number for each.")
        values[entries] = flat
    return values


def _remarks(data: Comparisons, scores: NDArray[np.float64]) -> list[Remark]:
    remarks = []
    if np.ptp(scores) == 0:
        remarks.append(
            Remark(
                "constant_scores",
                f"The model gives every response the same score ({scores[0]:g}), so it orders nothing: its accuracy of "
                "one half says only that equal scores count half.",
            )
        )
    if data.across_prompts:
        remarks.append(
            Remark("across_prompts", "Pairs cross prompts; a reward model is trained to order responses to one prompt.")
        )
    return remarks
