"""Scoring runs: a data set in, the scored or sampled one out, resumable in between."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from hf_align.collators.checks import as_dataset
from hf_align.collators.scorable import layout_of
from hf_align.data.layouts.recognition import scored_rows
from hf_align.data.parts import Parts
from hf_align.data.sinks import Source, check_out, write_rows
from hf_align.data.sources import check_split, load_rows
from hf_align.errors import UserError
from hf_align.evaluation.best_of import sample_best
from hf_align.evaluation.best_of_kept import Keep
from hf_align.evaluation.best_of_samples import Sampling
from hf_align.evaluation.scored import Scored, new_columns, score_dataset
from hf_align.rewards import Judge

SPLITS = ("train", "test", "validation", "eval")


def score_file(
    model: str,
    data: str,
    out: str,
    *,
    column: str = "score",
    labels: bool = False,
    uncertainty: bool = False,
    split: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Score the responses of a file, folder or Hub data set and write it with the scores.

    Finished blocks are kept in `OUT.partial` until the end, so the same call goes on after a kill.

    Args:
        model: Reward model: folder or Hub id.
        data: As in `load_named`, or `embedded:ratings` (pairs) or `embedded:rankings`.
        out: A .jsonl, .parquet or .csv file, or a folder.
        column: As in `score_dataset`.
        labels: As in `score_dataset`.
        uncertainty: As in `score_dataset`.
        split: Split of a data set with several. Default: the first of train, test, validation and eval.
        limit: Only the first rows.
        overwrite: Replace an existing `out`.
        settings: Of `score_dataset`: `max_length`, `quantization`, `progress`.

    Returns:
        Figures: `Scored.figures`, with the names and seconds.

    Raises:
        UserError: The model, the rows or `out` can't be used.
    """
    rows, source = _load(data, "pairs", split, limit)
    layout = layout_of(rows.column_names)
    new = new_columns(layout, rows.column_names, column, labels, uncertainty)
    kind = List(Value("float64")) if layout.suffixes == ("s",) else Value("float64")
    check_out(out, Features({**rows.features, **dict.fromkeys(new, kind)}), overwrite=overwrite)
    score = partial(score_dataset, model, rows, column=column, labels=labels, uncertainty=uncertainty, **settings)
    return {"model": model, "data": data, "out": out, **_run(score, out, source)}


def best_of_file(
    policy: str,
    model: str | Judge,
    data: str,
    out: str,
    sampling: Sampling,
    *,
    keep: Keep = "best",
    split: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Sample responses to the prompts of a file, folder or Hub data set and write those that are preferred.

    Resumed as `score_file` is.

    Args:
        policy: Policy: folder or Hub id.
        model: Reward model: folder or Hub id; or a judge of pairs.
        data: As in `load_named`, or `embedded:ratings` (prompts).
        out: A .jsonl or .parquet file, or a folder; .csv can't hold the lists.
        sampling: As in `sample_best`.
        keep: As in `sample_best`.
        split: As in `score_file`.
        limit: Only the first rows.
        overwrite: Replace an existing `out`.
        settings: Of `sample_best`: `finished_only`, `max_length`, `quantization`, `progress`.

    Returns:
        As `score_file`.

    Raises:
        UserError: A model, the rows or `out` can't be used.
    """
    rows, _ = _load(data, "prompts", split, limit)
    check_out(out, Features({**rows.features, "finished": List(Value("bool"))}), overwrite=overwrite)
    sample = partial(sample_best, policy, model, rows, sampling, keep=keep, **settings)
    name = model.name if isinstance(model, Judge) else model
    return {"policy": policy, "model": name, "data": data, "out": out, **_run(sample, out, None)}


def partial_folder(out: str) -> Path:
    """Folder of the finished parts of an unfinished run."""
    path = Path(out)
    return path.with_name(f"{path.name}.partial")


def _load(data: str, kind: Any, split: str | None, limit: int | None) -> tuple[Dataset, Source | None]:
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; give a number from 1")
    check_split(data, split)
    rows = load_rows(data, "train", 0, kind, field="data", splits=SPLITS if split is None else (split,))
    taken = as_dataset(scored_rows(rows, "data") if kind == "pairs" else rows, "data", ())
    source = Source(data, len(rows)) if taken is rows else None
    rows = taken
    return (rows if limit is None else rows.select(range(min(limit, len(rows))))), source


def _run(make: Callable[..., Scored], out: str, source: Source | None) -> dict[str, Any]:
    started, parts = time.monotonic(), Parts(partial_folder(out))
    scored = make(parts=parts)
    write_rows(scored.rows, out, source=source, added=scored.added)
    if parts.folder is not None:
        shutil.rmtree(parts.folder, ignore_errors=True)
    return {**scored.figures, "parts_found": parts.found, "seconds": time.monotonic() - started}
