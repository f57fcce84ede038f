"""Runs side by side: the metric that sums one up, and in which options, data and versions they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hf_align.errors import UserError
from hf_align.tracking.reader import Point, Run

HEADLINES = (
    *("eval_reward", "eval_accuracy", "eval_rewards/accuracies", "eval_mean_token_accuracy", "eval_loss"),
    *("objective/scores", "accuracy", "rewards/accuracies", "loss"),
)
"""Metrics that sum up a run, the first that was measured: on held-out rows, else in training."""
PLACES = ("output_dir", "run_name", "resume_from_checkpoint", "project")
"""Options in which runs differ anyhow."""


class Figure(NamedTuple):
    """A metric of a run: its best value, or its last one where no direction is known.

    Attributes:
        name: Name without its prefix.
        point: The value and its step; None if it was never measured.
        is_best: Whether it is the best value.

    Example:
        >>> from hf_align.tracking.compare import Figure
        >>> Figure("eval_loss", None, False).point is None
        True
    """

    name: str
    point: Point | None
    is_best: bool


def figure_of(run: Run, name: str) -> Figure:
    """A metric's best value, or its last one."""
    greater = run.config.get("greater_is_better") if asked_for(run) in (name, f"eval_{name}") else None
    try:
        best = run.best(name, greater)
    except UserError:
        points = run.metrics(name)
        return Figure(name, points[-1] if points else None, False)
    if best is None and (points := run.metrics(name)):  # all of them NaN or infinite
        return Figure(name, points[-1], False)
    return Figure(name, best, best is not None)


def asked_for(run: Run) -> str | None:
    """The metric that the run chose its best model by, as it is logged; None without one."""
    name = run.config.get("metric_for_best_model")
    return None if not name else name if name.startswith("eval_") else f"eval_{name}"


def headline(run: Run) -> Figure | None:
    """The metric that sums a run up: the one that its best model was chosen by, else the first of `HEADLINES`."""
    first = asked_for(run)
    names = [*([first] if first else []), *HEADLINES]
    return next((figure_of(run, name) for name in names if run.metrics(name)), None)


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its folder, without what all have in common, and a number where a folder has several."""
    parts = [run.folder.absolute().parts for run in runs]
    common = 0
    while all(len(each) > common + 1 for each in parts) and len({each[common] for each in parts}) == 1:
        common += 1
    names = ["/".join(each[common:]) for each in parts]
    return [
        name if names.count(name) == 1 else f"{name}#{names[: place + 1].count(name)}"
        for place, name in enumerate(names)
    ]


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted names."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """What differs between runs: options, data, base, versions and revision, each with the runs' values in order.

    Of runs of several algorithms only what all of them have.

    Example:
        >>> from hf_align.tracking import RunRecord, read_runs
        >>> from hf_align.tracking.compare import differences
        >>> for beta in (0.1, 0.5):
        ...     RunRecord.start(f"out/{beta}", "dpo", config={"beta": beta, "seed": 1}).end("finished")
        >>> differences(read_runs("out"))
        {'beta': [0.1, 0.5]}
    """
    described = [_described(run) for run in runs]
    names = list(dict.fromkeys(name for each in described for name in each))
    if len({run.algorithm for run in runs}) > 1:
        names = [name for name in names if all(name in each for each in described)]
    rows = {name: [each.get(name) for each in described] for name in names}
    return {name: values for name, values in rows.items() if any(repr(value) != repr(values[0]) for value in values)}


def _described(run: Run) -> dict[str, Any]:
    config = {name: value for name, value in run.config.items() if name not in PLACES}
    last = run.sessions[-1].facts if run.sessions else {}
    facts = {"data": run.data, "base": run.base, "versions": last.get("versions") or {}, "git": last.get("git")}
    return {"algorithm": run.algorithm, **flat(config), **flat(facts)}


def seconds_of(run: Run) -> float:
    """How long a run trained: its sessions, until their end or the last row that they wrote."""
    spans = [run.last_sign(session) - session.started for session in run.sessions]
    return sum(spans) if spans else math.nan


def course(run: Run, name: str) -> list[tuple[float, float]]:
    """A metric over the run's steps, those of later stages counted on."""
    lengths: dict[str, int] = {session.stage: 0 for session in run.sessions}
    for each in run.names:
        for point in run.metrics(each):
            lengths[point.stage] = max(lengths[point.stage], point.step)
    stages = list(lengths)
    offsets = {stage: sum(lengths[earlier] for earlier in stages[:place]) for place, stage in enumerate(stages)}
    return [(float(offsets[point.stage] + point.step), point.value) for point in run.metrics(name)]
