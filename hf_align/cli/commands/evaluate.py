"""`hf-align evaluate reward | policy`: figures with intervals, as a table and as JSON."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.collators import check_preferences, encode_prompts
from hf_align.collators.checks import as_dataset, group_rows, refuse
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import RowProblem, Side, read_pair, read_prompt, read_side
from hf_align.data.embedded.rows import heldout_sentences, make_prompts
from hf_align.data.sources import EMBEDDED, load_named
from hf_align.errors import UserError
from hf_align.evaluation import (
    Continuation,
    compare_policies,
    pair_accuracy,
    rating_report,
    sample_continuations,
    vader_scores,
)
from hf_align.evaluation.ratings import HUMAN
from hf_align.files import write_json
from hf_align.models.kinds import check_head, check_is_policy
from hf_align.models.loading import load_policy
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.sources import check_source, load_config, load_tokenizer
from hf_align.rewards import Reward, as_reward
from hf_align.rewards.named import read_reward
from hf_align.statistics import bootstrap_interval, pearson

SPLITS = ("test", "validation", "eval", "train")
CHUNK = 128
"""Responses scored between two moves of the progress bar."""
REWARD_MODEL = "reward model"


def run_reward(options: argparse.Namespace) -> None:
    """Scores held-out data with a reward model and shows how well it agrees with people.

    Args:
        options: Parsed arguments: `model`, `data`, `limit`, `quantization`, `seed`, `resamples`, `json`.

    Raises:
        UserError: The model or the data can't be used.
    """
    screen = Screen(stderr=options.json == "-")
    with quiet_libraries(screen):
        rows = heldout_sentences("test") if options.data == EMBEDDED else load_named(options.data, "--data", SPLITS)
        rows = _first(as_dataset(rows, "--data", ()), options.limit)
        measure = _measure_for(rows)
        model = load_reward_model(options.model, quantization=options.quantization)
        _to_gpu(model, options.quantization)
        figures = measure(model, rows, options, screen)
    _show(figures, options, screen, _reward_table)


def run_policy(options: argparse.Namespace) -> None:
    """Samples policies on the same prompts and shows what a judge says of their responses.

    Args:
        options: Parsed arguments: `model` (a list), `data`, `judge`, `limit`, `max_new_tokens`, `batch_size`,
            `quantization`, `seed`, `resamples`, `json`.

    Raises:
        UserError: A model, the data or the judge can't be used.
    """
    for name in ("max_new_tokens", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; give a number from 1")
    if len(set(options.model)) < len(options.model):
        raise UserError("--model names the same policy twice; name each once")
    screen = Screen(stderr=options.json == "-")
    with quiet_libraries(screen):
        source = None if options.judge == "vader" else read_reward(options.judge, "--judge")
        rows = _prompt_rows(options)
        _check_models(options.model, source)
        _check_prompts(rows, options)
        samples = {name: _sampled(name, rows, options, screen) for name in options.model}
        scores = _judged(source, rows, samples, options)
        domains = [str(domain) for domain in rows["domain"]] if "domain" in rows.column_names else ["all"] * len(rows)
        report = compare_policies(samples, scores, domains, resamples=options.resamples, seed=options.seed)
    texts = [
        {"prompt": prompt, **{name: {"text": samples[name][row].text, "score": scores[name][row]} for name in samples}}
        for row, prompt in enumerate(rows["prompt"])
    ]
    figures = {"data": options.data, "judge": options.judge, "seed": options.seed, "report": report, "samples": texts}
    _show(figures, options, screen, _policy_table)


# ---- reward models ----


def _measure_for(rows: Dataset) -> Any:
    columns = set(rows.column_names)
    if {"chosen", "rejected"} <= columns:
        return _on_pairs
    if {"prompt", "response"} <= columns and columns & {"rating", "ratings"}:
        return _on_ratings
    raise UserError(
        f"--data has the columns {', '.join(rows.column_names)}; pairs need chosen and rejected, rated responses "
        "prompt, response and rating or ratings"
    )


def _on_pairs(model: RewardModel, rows: Dataset, options: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    check_preferences(rows, name="--data")
    encoder = PairEncoder(model.tokenizer)
    prompts: list[Side] = []
    responses: list[Side] = []
    for row in rows.with_format(None):
        pair = read_pair(cast(dict[str, Any], row))
        prompt, chosen, rejected = pair.prompt, pair.chosen, pair.rejected
        if prompt is None:  # text that chosen and rejected begin with
            prompt, whole_chosen, whole_rejected = encoder.texts(pair, cast(dict[str, Any], row))
            chosen, rejected = whole_chosen[len(prompt) :], whole_rejected[len(prompt) :]
        prompts += [prompt, prompt]
        responses += [chosen, rejected]
    scores = np.asarray(_scores(model, prompts, responses, screen)).reshape(-1, 2)
    difference = scores[:, 0] - scores[:, 1]
    right = (np.sign(difference) + 1) / 2  # a tie is what a coin would earn
    kwargs = {"resamples": options.resamples, "seed": options.seed}
    return {
        "model": options.model,
        "data": options.data,
        "pairs": len(difference),
        "accuracy": float(right.mean()),
        "accuracy_interval": bootstrap_interval(np.mean, right, **kwargs),
        "margin": float(difference.mean()),
        "margin_interval": bootstrap_interval(np.mean, difference, **kwargs),
    }


def _on_ratings(model: RewardModel, rows: Dataset, options: argparse.Namespace, screen: Screen) -> dict[str, Any]:
    several = "ratings" in rows.column_names
    prompts, responses, ratings = _rated(rows, "ratings" if several else "rating")
    scores = _scores(model, prompts, responses, screen)
    domains = [str(domain) for domain in rows["domain"]] if "domain" in rows.column_names else ["all"] * len(rows)
    figures = {"model": options.model, "data": options.data, "texts": len(rows)}
    kwargs = {"resamples": options.resamples, "seed": options.seed}
    if several:
        return {**figures, "report": rating_report({REWARD_MODEL: scores}, ratings, domains, **kwargs)}
    accuracy, pairs = pair_accuracy(scores, ratings, min_gap=0.0)
    scored = {
        "r": float(pearson(scores, ratings)),
        "r_interval": bootstrap_interval(pearson, scores, ratings, **kwargs),
        "pair_accuracy": accuracy,
    }
    return {**figures, "report": {"all": {"texts": len(rows), "pairs": pairs, "scorers": {REWARD_MODEL: scored}}}}


def _rated(rows: Dataset, column: str) -> tuple[list[Side], list[Side], list[Any]]:
    """Prompts, responses and ratings, checked row by row."""
    prompts, responses, ratings, problems = [], [], [], []
    for row in rows.with_format(None):
        row = cast(dict[str, Any], row)
        try:
            value = row[column]
            votes = value if column == "ratings" and isinstance(value, list) else [value]
            if not votes or not all(_is_number(vote) for vote in votes):
                raise RowProblem(f"no {column} that is a number")
            if column == "ratings" and len(votes) < 2:
                raise RowProblem("fewer than two ratings (with one a row, call the column rating)")
            prompts.append(read_prompt(row))
            responses.append(read_side(row, "response"))
            ratings.append(value)
            problems.append("")
        except RowProblem as problem:
            problems.append(str(problem))
    refuse(group_rows(problems), "--data", "fix or drop them")
    return prompts, responses, ratings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _scores(model: RewardModel, prompts: Sequence[Side], responses: Sequence[Side], screen: Screen) -> list[float]:
    scores: list[float] = []
    with screen.task("scoring", len(prompts)) as advance:
        for start in range(0, len(prompts), CHUNK):
            scores += model.score(prompts[start : start + CHUNK], responses[start : start + CHUNK])
            advance(len(scores), "")
    return scores


def _reward_table(figures: Mapping[str, Any], screen: Screen) -> None:
    if "accuracy" in figures:
        rows = [
            [name, _with_interval(figures[name], figures[f"{name}_interval"], digits)]
            for name, digits in (("accuracy", 3), ("margin", 3))
        ]
        screen.table(f"{figures['model']} on {figures['pairs']} pairs", ["", "95% interval"], rows)
        return
    rows = []
    for label, part in figures["report"].items():
        for name, found in part["scorers"].items():
            # Nobody's ratings are resampled for the single person, so there is no interval.
            r = f"{found['r']:.3f}" if name == HUMAN else _with_interval(found["r"], found["r_interval"], 3)
            rows.append([f"{label}: {name}", str(part["texts"]), r, f"{found['pair_accuracy']:.3f}"])
    screen.table(str(figures["model"]), ["", "texts", "r [95% interval]", "pairs ranked right"], rows)


# ---- policies ----


def _prompt_rows(options: argparse.Namespace) -> Dataset:
    if options.data == EMBEDDED:
        return make_prompts("test", options.limit, options.seed)
    rows = _first(as_dataset(load_named(options.data, "--data", SPLITS), "--data", ("prompt",)), options.limit)
    problems = []
    for row in rows.with_format(None):
        try:
            read_prompt(cast(dict[str, Any], row))
            problems.append("")
        except RowProblem as problem:
            problems.append(str(problem))
    refuse(group_rows(problems), "--data", "fix or drop them")
    return rows


def _check_models(policies: Sequence[str], judge: Any) -> None:
    """Refuses what can't write or judge, before a weight is loaded."""
    for name in policies:
        check_source(name)
        check_is_policy(name, "--model")
    if isinstance(judge, str):
        check_source(judge)
        try:
            check_head(judge)
        except UserError as error:
            raise UserError(f"--judge: {error}") from None


def _check_prompts(rows: Dataset, options: argparse.Namespace) -> None:
    """Refuses prompts that a policy has no chat template for, and responses that it has no positions for."""
    prompts = rows.with_format(None)["prompt"][:]
    for name in options.model:
        tokenizer = load_tokenizer(name)
        if not tokenizer.chat_template and any(isinstance(prompt, list) for prompt in prompts):
            raise UserError(
                f"--data has messages as prompts, and the tokenizer of {name} has no chat template for them"
            )
        positions = getattr(load_config(name).get_text_config(), "max_position_embeddings", None)
        longest = max(map(len, encode_prompts(tokenizer, prompts)))
        if positions is None or longest + options.max_new_tokens <= positions:
            continue
        takes = f"{name} has {positions} positions and the longest prompt takes {longest}"
        if longest >= positions:
            raise UserError(f"--data: {takes}, which leaves no room for a response; shorten or drop such prompts")
        raise UserError(f"--max-new-tokens is {options.max_new_tokens}; {takes}, so give at most {positions - longest}")


def _sampled(name: str, rows: Dataset, options: argparse.Namespace, screen: Screen) -> list[Continuation]:
    tokenizer = load_tokenizer(name)
    prompts = rows.with_format(None)["prompt"][:]
    model = load_policy(name, quantization=options.quantization)
    _to_gpu(model, options.quantization)
    with screen.task(f"sampling {Path(name).name}", len(rows)) as advance:
        return sample_continuations(
            model,
            tokenizer,
            prompts,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            seed=options.seed,
            progress=lambda done: advance(done, ""),
        )


def _judged(
    source: Any, rows: Dataset, samples: Mapping[str, Sequence[Continuation]], options: argparse.Namespace
) -> dict[str, list[float]]:
    texts = {name: [sample.text for sample in written] for name, written in samples.items()}
    if source is None:
        return {name: vader_scores(written) for name, written in texts.items()}
    judge = _judge(source, options.quantization)
    plain = rows.with_format(None)
    columns = {name: plain[name][:] for name in rows.column_names if name != "prompt"}
    return {name: judge(plain["prompt"][:], written, columns).tolist() for name, written in texts.items()}


def _judge(source: Any, quantization: Any) -> Reward:
    if not isinstance(source, str):
        return as_reward(source)
    model = load_reward_model(source, quantization=quantization)
    if model.head_is_new:
        raise UserError(
            f"--judge: {source} has no reward head and would score at random; train it with `hf-align reward`"
        )
    _to_gpu(model, quantization)
    return as_reward(model)


def _policy_table(figures: Mapping[str, Any], screen: Screen) -> None:
    for label, part in figures["report"].items():
        rows = [
            [
                name,
                _with_interval(found["score"], found["score_interval"], 3),
                _with_interval(found["gain"], found["gain_interval"], 3) if "gain" in found else "",
                f"{found['distinct_2']:.2f}",
                f"{found['mean_tokens']:.1f}",
                f"{found['ended']:.2f}",
            ]
            for name, found in part["policies"].items()
        ]
        title = f"{label}: {part['prompts']} prompts, judged by {figures['judge']}"
        columns = ["", "score [95% interval]", "gain over the first", "distinct-2", "tokens", "ended"]
        screen.table(title, columns, rows)


# ---- both ----


def _first(rows: Dataset, limit: int | None) -> Dataset:
    if limit is None:
        return rows
    if limit < 1:
        raise UserError(f"--limit is {limit}; give a number from 1")
    return rows.select(range(min(limit, len(rows))))


def _to_gpu(model: Any, quantization: Any) -> None:
    """Quantised weights were loaded there already."""
    if torch.cuda.is_available() and quantization is None:
        model.to("cuda")


def _with_interval(value: float, interval: Sequence[float], digits: int) -> str:
    low, high = interval
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _show(figures: dict[str, Any], options: argparse.Namespace, screen: Screen, table: Any) -> None:
    if options.json == "-":
        print(json.dumps(figures, indent=2, default=str))
        return
    table(figures, screen)
    if options.json is not None:
        target = Path(options.json)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, figures)
        except OSError as error:
            raise UserError(f"--json: {options.json} can't be written: {error.strerror or error}") from None
        screen.line(f"figures: {options.json}")
