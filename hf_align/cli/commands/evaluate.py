"""`hf-align evaluate policy`: figures with intervals, as a table and as JSON."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from hf_align.cli.console import Screen, quiet_libraries, write_figures
from hf_align.collators.checks import as_dataset
from hf_align.data.embedded.rows import make_prompts
from hf_align.data.sources import EMBEDDED, load_named
from hf_align.errors import UserError
from hf_align.evaluation import measure_policies
from hf_align.rewards.named import read_reward

SPLITS = ("test", "validation", "eval", "train")


def run_policy(options: argparse.Namespace) -> None:
    """Sample policies on the same prompts and show a judge's scores of their responses.

    Args:
        options: Parsed arguments: `model` (a list), `data`, `judge`, `limit`, `max_new_tokens`, `batch_size`,
            `quantization`, `seed`, `resamples`, `json`.

    Raises:
        UserError: A model, the data or the judge can't be used.
    """
    screen = Screen(stderr=options.json == "-")
    with quiet_libraries(screen):
        judge = None if options.judge == "vader" else read_reward(options.judge, "judge")
        if options.data == EMBEDDED:
            rows = make_prompts("test", options.limit, options.seed)
        else:
            rows = _first(as_dataset(load_named(options.data, "data", SPLITS), "data", ("prompt",)), options.limit)
        figures = measure_policies(
            options.model,
            rows,
            judge,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            quantization=options.quantization,
            resamples=options.resamples,
            seed=options.seed,
            progress=screen,
        )
    figures = {"data": options.data, "judge": options.judge, "seed": options.seed, **figures}
    _show(figures, options, screen, _policy_table)


def _first(rows: Dataset, limit: int | None) -> Dataset:
    if limit is None:
        return rows
    if limit < 1:
        raise UserError(f"limit is {limit}; give a number from 1")
    return rows.select(range(min(limit, len(rows))))


def _policy_table(figures: Mapping[str, Any], screen: Screen) -> None:
    for label, part in figures["report"].items():
        rows = [
            [
                name,
                _with_interval(figure["score"], figure["score_interval"]),
                _with_interval(figure["gain"], figure["gain_interval"]) if "gain" in figure else "",
                f"{figure['distinct_2']:.2f}",
                f"{figure['mean_tokens']:.1f}",
                f"{figure['ended']:.2f}",
            ]
            for name, figure in part["policies"].items()
        ]
        screen.table(
            f"{label}: {part['prompts']} prompts, judged by {figures['judge']}",
            ["", "score [95% interval]", "gain over the first", "distinct-2", "tokens", "ended"],
            rows,
        )


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _show(figures: dict[str, Any], options: argparse.Namespace, screen: Screen, table: Any) -> None:
    if options.json == "-":
        print(json.dumps(figures, indent=2, default=str))
        return
    table(figures, screen)
    if options.json is not None:
        write_figures(figures, options.json, screen)
