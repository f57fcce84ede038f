"""Robustness: what changes of a response that leave its meaning as it is do to a reward model's scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.collators.rows import Side, content_of
from hf_align.data.comparisons import Comparisons, Response
from hf_align.errors import UserError
from hf_align.evaluation.accuracy import points
from hf_align.evaluation.changes import CHANGES, changed
from hf_align.evaluation.scorers import Score, score_all
from hf_align.progress import Progress, Silent
from hf_align.statistics import Resampling

PARAPHRASE, PADDING_SIDE, ALONE = "paraphrase", "padding_side", "alone"
MOST_TEXTS = 400
"""Texts that are changed; with more, those of prompts drawn at random."""
LAYOUT_TEXTS = 32
"""Texts scored in another layout."""


def measure_robustness(
    data: Comparisons,
    scores: NDArray[np.float64],
    score: Score,
    resampling: Resampling,
    *,
    model: Any = None,
    changes: Sequence[str] = tuple(CHANGES),
    paraphrase: Callable[[list[str]], list[str]] | None = None,
    most_texts: int = MOST_TEXTS,
    seed: int = 0,
    progress: Progress,
) -> dict[str, Any]:
    """Accuracy and scores under changes of the responses (the last message's text; prompts stay as they are).

    A change is made to both responses of a pair ("accuracy", as if every user wrote that way) and to one of the two
    ("one_sided": the mean over changing only the better and only the worse one, which shows what a form is paid).

    Args:
        data: The pairs.
        scores: `[R]` the model's.
        score: The model.
        resampling: Draws of `data`'s units.
        model: The model as given, for the layouts that it may have.
        changes: Names of `hf_align.evaluation.changes.CHANGES`.
        paraphrase: A function that rewrites texts, measured as a further change.
        most_texts: See `MOST_TEXTS`.
        seed: Seed of the draws and the changes.
        progress: Receiver of progress.

    Returns:
        "texts", "pairs" (decided ones among these texts), "accuracy" (unchanged), "changes": for each "name",
        "unchanged" (texts that it leaves as they are), "accuracy", "drop" and "one_sided_drop" with "..._interval",
        "shift" (mean change of the score) with interval and "absolute_shift", both in standard deviations of the
        model's scores (None if it scores everything alike); "worst", the name with the largest drop; "mean_drop"; and
        "layouts", where only rounding may differ: "name", "texts", "largest_difference" in the scores' unit.
    """
    entries, texts = _drawn(data, most_texts, seed)
    place = np.full(len(data.texts), -1)
    place[texts] = np.arange(len(texts))
    responses = [data.texts[text] for text in texts]
    contents = [_content(response.text) for response in responses]
    original = scores[_first_entries(data)][texts]
    versions = {name: changed(contents, name, seed) for name in changes}
    if paraphrase is not None:
        versions[PARAPHRASE] = _paraphrased(paraphrase, contents)
    after = np.tile(original, (len(versions), 1))
    unchanged = []
    for row, (name, new) in enumerate(versions.items()):
        different = [number for number, (a, b) in enumerate(zip(contents, new, strict=True)) if a != b]
        rewritten = [_with_content(responses[number], new[number]) for number in different]
        after[row, different] = score_all(score, rewritten, progress, f"scoring {name.replace('_', ' ')}")
        unchanged.append(len(texts) - len(different))
    pairs = np.flatnonzero(entries[data.first] & entries[data.second] & (data.better != 0))
    before = points(data, scores)[pairs]
    drops = _drops(data, pairs, place, original, after, before, resampling)
    shifts = _shifts(after - original, float(np.std(scores)), data.unit_of[_first_entries(data)][texts], resampling)
    rows = [
        {"name": name, "unchanged": count, **drop, **shift}
        for name, count, drop, shift in zip(versions, unchanged, drops, shifts, strict=True)
    ]
    worst = max(rows, key=lambda row: row["drop"], default=None)
    return {
        "texts": len(texts),
        "pairs": len(pairs),
        "accuracy": float(before.mean()) if len(pairs) else float("nan"),
        "changes": rows,
        "worst": worst["name"] if worst else None,
        "mean_drop": float(np.mean([row["drop"] for row in rows])) if rows else float("nan"),
        "layouts": _layouts(responses[:LAYOUT_TEXTS], original[:LAYOUT_TEXTS], score, model, progress),
    }


def _drops(
    data: Comparisons,
    pairs: NDArray[np.intp],
    place: NDArray[np.intp],
    original: NDArray[np.float64],
    after: NDArray[np.float64],
    before: NDArray[np.float64],
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """Accuracy after each change of both or one of the responses; `place` is a text's place in `original`."""
    first, second = (place[data.text_of[side[pairs]]] for side in (data.first, data.second))
    better = data.better[pairs]
    unit, other = (None if units is None else units[pairs] for units in data.pair_units)
    assert unit is not None

    def gained(a: NDArray, b: NDArray) -> NDArray[np.float64]:
        return (np.sign(a[..., first] - b[..., second]) * better + 1) / 2

    both = gained(after, after)
    one_sided = (gained(after, original) + gained(original, after)) / 2
    measured = resampling.ratios(
        before[:, None] - np.concatenate([both, one_sided]).T, np.ones(len(pairs)), unit, other
    )
    return [
        {
            "accuracy": float(accuracy),
            "drop": drop[0],
            "drop_interval": drop[1],
            "one_sided_drop": one[0],
            "one_sided_drop_interval": one[1],
        }
        for accuracy, drop, one in zip(both.mean(axis=1), measured[: len(after)], measured[len(after) :], strict=True)
    ]


def _shifts(
    moved: NDArray[np.float64], deviation: float, unit: NDArray[np.intp], resampling: Resampling
) -> list[dict[str, Any]]:
    """Changes of the score in standard deviations, from `[changes, texts]` differences."""
    if not deviation:
        return [{"shift": None, "shift_interval": None, "absolute_shift": None}] * len(moved)
    measured = resampling.ratios((moved / deviation).T, np.ones(moved.shape[1]), unit)
    return [
        {"shift": shift, "shift_interval": interval, "absolute_shift": float(np.abs(row).mean() / deviation)}
        for (shift, interval), row in zip(measured, moved, strict=True)
    ]


def _first_entries(data: Comparisons) -> NDArray[np.intp]:
    """`[S]` the first entry of each text."""
    return np.unique(data.text_of, return_index=True)[1]


def _drawn(data: Comparisons, most_texts: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Entries of units drawn at random until they have `most_texts` texts, and these texts in order."""
    unit = data.unit_of[_first_entries(data)]
    sizes = np.bincount(unit, minlength=data.units)
    order = np.random.default_rng(seed).permutation(data.units)
    count = max(1, int(np.searchsorted(np.cumsum(sizes[order]), most_texts, side="right")))
    drawn = np.zeros(data.units, dtype=bool)
    drawn[order[:count]] = True
    return drawn[data.unit_of], np.flatnonzero(drawn[unit])


def _content(text: Side) -> str:
    return text if isinstance(text, str) else content_of(text[-1])


def _with_content(response: Response, content: str) -> Response:
    text = response.text
    if isinstance(text, str):
        return response._replace(text=content)
    return response._replace(text=[*text[:-1], {**text[-1], "content": content}])


def _paraphrased(paraphrase: Callable[[list[str]], list[str]], contents: list[str]) -> list[str]:
    new = list(paraphrase(list(contents)))
    if len(new) != len(contents) or not all(isinstance(text, str) and text.strip() for text in new):
        raise UserError(f"paraphrase got {len(contents)} texts; return one text for each, none of them empty.")
    return new


def _layouts(
    responses: Sequence[Response], original: NDArray[np.float64], score: Score, model: Any, progress: Progress
) -> list[dict[str, Any]]:
    """Scores of the same texts, each without others beside it, and with padding on the other side."""
    results = {ALONE: [float(score_all(score, [each], Silent(), ALONE)[0]) for each in responses]}
    tokenizer = getattr(model, "tokenizer", None)
    if getattr(tokenizer, "padding_side", None) in ("left", "right"):
        with _other_padding_side(tokenizer):
            results[PADDING_SIDE] = score_all(score, responses, progress, "scoring padded on the other side").tolist()
    return [
        {
            "name": name,
            "texts": len(responses),
            "largest_difference": float(np.abs(np.asarray(values) - original).max()),
        }
        for name, values in results.items()
    ]


@contextmanager
def _other_padding_side(tokenizer: Any) -> Iterator[None]:
    side = tokenizer.padding_side
    tokenizer.padding_side = "left" if side == "right" else "right"
    try:
        yield
    finally:
        tokenizer.padding_side = side
