"""What each algorithm of a benchmark came to on a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_align.evaluation.grid.crossed import (
    FEWEST_FOR_IQM,
    Table,
    crossed_length_controlled,
    crossed_mean,
    interquartile_mean,
)
from hf_align.evaluation.grid.runs import Figures, Run, Runs
from hf_align.evaluation.grid.traits import method_of, needs_of
from hf_align.evaluation.win_rate import wins_of

GAINS = ("judge", "reward")
"""Figures of which the gain over the base counts."""
SHARE = (0.0, 1.0)
"""Ends of a share's interval."""


def table_of(runs: Mapping[int, Run], name: str, seeds: Sequence[int] | None = None) -> Table | None:
    """`[S, P]` of a figure, or None unless every seed has it.

    Args:
        runs: Runs by seed.
        name: One of `FIGURES`.
        seeds: Which of them. Default: all.
    """
    figures = [runs[seed].figures.get(name) for seed in (runs if seeds is None else seeds)]
    return np.stack(figures) if figures and all(each is not None for each in figures) else None  # pyright: ignore


def gain_of(figures: Figures, base: Figures, name: str) -> NDArray[np.float64] | None:
    """`[P]` a figure minus the base's of the same prompt and seed."""
    return figures[name] - base[name] if name in figures and name in base else None


def wins_over(figures: Figures, base: Figures) -> NDArray[np.float64] | None:
    """`[P]` 1, 1/2 or 0 against the base's response: as the judge said, or else by its scores."""
    if "win" in figures:
        return figures["win"]
    return wins_of(figures["judge"], base["judge"]) if "judge" in figures and "judge" in base else None


def stacked(rows: Sequence[NDArray[np.float64] | None]) -> Table | None:
    """`[S, P]`, or None if a seed has nothing."""
    present = [row for row in rows if row is not None]
    return np.stack(present) if present and len(present) == len(rows) else None


def main_figure(runs: Runs) -> str:
    """What algorithms are compared by: "judge", or "win" where no run has scores of a judge."""
    every = [run for cells in runs.finished.values() for each in cells.values() for run in each.values()]
    return "judge" if any("judge" in run.figures for run in every) else "win"


def is_trained(runs: Mapping[int, Run]) -> bool:
    """Whether the runs of a label are trainings."""
    return all(run.trained for run in runs.values())


def main_table(runs: Mapping[int, Run], seeds: Sequence[int], figure: str, base: Mapping[int, Figures]) -> Table | None:
    """`[S, P]` of the gain, or of the wins, over the base with the same seed; policies are compared by it.

    With equal seeds the base cancels out; best-of-n may have fewer, and then its mean would be over another base.
    """
    if figure == "judge":
        return stacked([gain_of(runs[seed].figures, base[seed], "judge") for seed in seeds])
    return stacked([wins_over(runs[seed].figures, base[seed]) for seed in seeds])


def summarise(label: str, runs: Mapping[int, Run], base: Mapping[int, Figures], failed: int) -> dict[str, Any]:
    """An algorithm's figures on one data set.

    Args:
        label: What the grid calls it.
        runs: Its finished runs by seed, one at least.
        base: The base's figures by seed.
        failed: How many of its runs failed.

    Returns:
        "label", "algorithm", "method", "options", "needs", "seeds", "failed"; estimates (`Estimate.to_json`) "judge"
        and "reward" (gains over the base, with "iqm" and "iqm_interval" from 4 seeds on and "spread", the standard
        deviation between trainings), "win_rate", "length_controlled", "kl", "length" (tokens) and "ended", None where
        not measured; "rows", "steps", "training_seconds" (lists by seed), "peak_memory_bytes" (the largest),
        "stopped_by" (counts), "devices".
    """
    first = next(iter(runs.values()))
    trained = first.trained
    options = first.facts.get("options") or {}
    entry: dict[str, Any] = {
        "label": label,
        "algorithm": first.algorithm,
        "method": method_of(first.algorithm, options),
        "options": options,
        "needs": needs_of(first.algorithm, options),
        "seeds": list(runs),
        "failed": failed,
    }
    for name in GAINS:
        gains = stacked([gain_of(run.figures, base[seed], name) for seed, run in runs.items()])
        entry[name] = None if gains is None else _with_spread(gains, trained)
    wins = stacked([wins_over(run.figures, base[seed]) for seed, run in runs.items()])
    longer = stacked([gain_of(run.figures, base[seed], "length") for seed, run in runs.items()])
    won = None if wins is None else crossed_mean(wins, trained=trained, bounds=SHARE, null=0.5)
    entry["win_rate"] = won and won.to_json()
    entry["length_controlled"] = (
        None if wins is None or longer is None else crossed_length_controlled(wins, longer, trained=trained).to_json()
    )
    described: list[tuple[str, str, dict[str, Any]]] = [
        ("kl", "kl", {}),
        ("length", "length", {"null": np.nan}),
        ("ended", "finished", {"null": np.nan, "bounds": SHARE}),
    ]
    for key, name, given in described:
        values = table_of(runs, name)
        entry[key] = None if values is None else crossed_mean(values, trained=trained, **given).to_json()
    return entry | _costs(runs)


def _with_spread(gains: Table, trained: bool) -> dict[str, Any]:
    """A gain with its spread between trainings and, from enough of them on, its interquartile mean."""
    entry = crossed_mean(gains, trained=trained).to_json()
    entry["spread"] = float(gains.mean(axis=1).std(ddof=1)) if trained and len(gains) > 1 else None
    if trained and len(gains) >= FEWEST_FOR_IQM:
        entry["iqm"], entry["iqm_interval"] = interquartile_mean(gains)
    return entry


def _costs(runs: Mapping[int, Run]) -> dict[str, Any]:
    facts = [run.facts for run in runs.values()]
    memory = [each["peak_memory_bytes"] for each in facts if each.get("peak_memory_bytes") is not None]
    return {
        **{name: [each.get(name) for each in facts] for name in ("rows", "steps", "training_seconds")},
        "peak_memory_bytes": max(memory, default=None),
        "stopped_by": dict(
            sorted(Counter(str(each["stopped_by"]) for each in facts if each.get("stopped_by")).items())
        ),
        "devices": sorted({str(each["device"]) for each in facts if each.get("device")}),
    }


def summarise_base(base: Mapping[int, Figures]) -> dict[str, Any]:
    """Means of the model that all start from: "judge", "reward", "length" and "ended", None where not measured."""
    names = {"judge": "judge", "reward": "reward", "length": "length", "ended": "finished"}
    tables = {key: stacked([figures.get(name) for figures in base.values()]) for key, name in names.items()}
    return {
        "seeds": sorted(base),
        **{key: None if table is None else crossed_mean(table, null=np.nan).to_json() for key, table in tables.items()},
    }
