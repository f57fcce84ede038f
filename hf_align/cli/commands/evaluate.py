"""`hf-align evaluate reward | policy`: figures with intervals, as a table and as JSON."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from datasets import Dataset

from hf_align.cli.console import Screen, quiet_libraries, write_figures
from hf_align.collators.checks import as_dataset
from hf_align.data.embedded.rows import heldout_sentences, make_prompts
from hf_align.data.sources import EMBEDDED, load_named
from hf_align.errors import UserError
from hf_align.evaluation import measure_on_pairs, measure_on_ratings, measure_policies
from hf_align.evaluation.ratings import HUMAN
from hf_align.evaluation.scorers import to_gpu
from hf_align.models.reward import load_reward_model
from hf_align.rewards.named import read_reward

SPLITS = ("test", "validation", "eval", "train")


def run_reward(options: argparse.Namespace) -> None:
    """Score held-out data with a reward model and show its agreement with people.

    Args:
        options: Parsed arguments: `model`, `data`, `limit`, `across_prompts`, `quantization`, `seed`, `resamples`,
            `json`.

    Raises:
        UserError: The model or the data can't be used.
    """
    screen = Screen(stderr=options.json == "-")
    with quiet_libraries(screen):
        rows = heldout_sentences("test") if options.data == EMBEDDED else load_named(options.data, "data", SPLITS)
        rows = _first(as_dataset(rows, "data", ()), options.limit)
        measure = _measure_for(rows.column_names)
        if options.across_prompts:
            if measure is measure_on_pairs:
                raise UserError("across_prompts is for rated responses; chosen and rejected have one prompt")
            measure = partial(measure, across_prompts=True)
        model = to_gpu(load_reward_model(options.model, quantization=options.quantization), options.quantization)
        figures = measure(model, rows, resamples=options.resamples, seed=options.seed, progress=screen)
    _show({"model": options.model, "data": options.data, **figures}, options, screen, _reward_table)


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


def _measure_for(names: list[str]) -> Callable[..., dict[str, Any]]:
    columns = set(names)
    if {"chosen", "rejected"} <= columns:
        return measure_on_pairs
    if {"prompt", "response"} <= columns and columns & {"rating", "ratings"}:
        return measure_on_ratings
    raise UserError(
        f"data has the columns {', '.join(names)}; pairs need chosen and rejected, rated responses prompt, response "
        "and rating or ratings"
    )


def _first(rows: Dataset, limit: int | None) -> Dataset:
    if limit is None:
        return rows
    if limit < 1:
        raise UserError(f"limit is {limit}; give a number from 1")
    return rows.select(range(min(limit, len(rows))))


def _reward_table(figures: Mapping[str, Any], screen: Screen) -> None:
    if "accuracy" in figures:
        rows = [[name, _with_interval(figures[name], figures[f"{name}_interval"])] for name in ("accuracy", "margin")]
        screen.table(f"{figures['model']} on {figures['pairs']} pairs", ["", "95% interval"], rows)
        return
    rows, which = [], "of any prompts" if figures["across_prompts"] else "of one prompt"
    for label, part in figures["report"].items():
        for name, figure in part["scorers"].items():
            # A single person's ratings aren't resampled, so there is no interval.
            r = f"{figure['r']:.3f}" if name == HUMAN else _with_interval(figure["r"], figure["r_interval"])
            right = f"{figure['pair_accuracy']:.3f}" if part["pairs"] else "no pairs"
            rows.append([f"{label}: {name}", str(part["texts"]), r, right])
    screen.table(str(figures["model"]), ["", "texts", "r [95% interval]", f"pairs {which} ranked right"], rows)
    if not figures["report"]["all"]["pairs"] and not figures["across_prompts"]:
        screen.line("no two responses to one prompt have different ratings; --across-prompts compares any two")


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
