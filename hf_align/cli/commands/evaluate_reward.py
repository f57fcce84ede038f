"""`hf-align evaluate reward`: the report on a reward model, in the terminal, as JSON and as one page."""

import argparse
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_align.cli.console import Screen, quiet_libraries, write_figures
from hf_align.collators.checks import as_dataset
from hf_align.data.embedded.rows import heldout_sentences
from hf_align.data.sources import EMBEDDED, load_named
from hf_align.errors import UserError
from hf_align.evaluation import Remark, RewardReport, reward_report
from hf_align.evaluation.benchmark_rows import Benchmark, output_rows, recognise, result_json, with_prompt
from hf_align.evaluation.report import check_suffix
from hf_align.evaluation.scorers import vader_judge
from hf_align.files import whole_file, write_json
from hf_align.rewards.named import read_reward

SPLITS = ("test", "validation", "eval", "train")
MADE_PROMPTS = Remark(
    "made_prompts",
    "The sentences were not written to a prompt: those of a domain share one that was made for them, so these pairs "
    "cross prompts in fact.",
)


def run_reward(options: argparse.Namespace) -> None:
    """Measure a reward model and print the report.

    Args:
        options: Parsed arguments; see `hf-align evaluate reward --help`.

    Raises:
        UserError: The model, the data, the judge or a file can't be used.
    """
    screen = Screen(stderr=options.json == "-")
    _check_files(options)
    with quiet_libraries(screen):
        judge = _judge(options.judge)
        rows = _rows(options)
        benchmark = recognise(rows)
        if benchmark is None and (options.result or options.outputs):
            flag = "result" if options.result else "outputs"
            raise UserError(f"{flag} is for rows of RewardBench, RewardBench 2 or RM-Bench, and data has other columns")
        if benchmark is not None:
            screen.line(f"data: {benchmark.name} ({len(rows):,} rows), measured by its own formula, too", "dim")
        report = reward_report(
            options.model,
            rows,
            judge=judge,
            across_prompts=options.across_prompts,
            output=options.output,
            chat_template=options.chat_template,
            quantization=options.quantization,
            min_gap=options.min_gap,
            resamples=options.resamples,
            seed=options.seed,
            robustness_texts=options.robustness_texts,
            progress=screen,
        )
    report.facts |= {"data": options.data, "command": shlex.join(["hf-align", *options.arguments])}
    if options.data == EMBEDDED:
        report.remarks.append(MADE_PROMPTS)
    _show(report, options, screen)
    if benchmark is not None:
        _write_benchmark(benchmark, rows, report, options, screen)


def _check_files(options: argparse.Namespace) -> None:
    """Refuse files that can't be written before anything is measured."""
    if options.report is not None:
        check_suffix(options.report, "report")
    for name in ("report", "json", "result", "outputs"):
        path = getattr(options, name)
        if path is None or path == "-":
            continue
        folder = next((each for each in Path(path).absolute().parents if each.exists()), Path("/"))
        if Path(path).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            reason = "it is a folder" if Path(path).is_dir() else f"{folder} is no folder that can be written to"
            raise UserError(f"{name}: {path} can't be written: {reason}")


def _judge(name: str | None) -> Any:
    if name is None:
        return None
    return vader_judge if name == "vader" else read_reward(name, "judge")


def _rows(options: argparse.Namespace) -> Dataset:
    splits = SPLITS if options.split is None else (options.split,)
    rows = heldout_sentences("test") if options.data == EMBEDDED else load_named(options.data, "data", splits)
    rows = with_prompt(as_dataset(rows, "data", ()))
    if options.limit is None:
        return rows
    if options.limit < 1:
        raise UserError(f"limit is {options.limit}; give a number from 1")
    return rows.select(range(min(options.limit, len(rows))))


def _show(report: RewardReport, options: argparse.Namespace, screen: Screen) -> None:
    if options.json == "-":
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        screen.line(str(report))
        if options.json is not None:
            write_figures(report.to_json(), options.json, screen)
    if options.report is not None:
        _write(lambda path: report.save(path), options.report, "report", screen)


def _write_benchmark(
    benchmark: Benchmark, rows: Dataset, report: RewardReport, options: argparse.Namespace, screen: Screen
) -> None:
    """Write the result and the outputs that the benchmark's own script writes, where they are asked for."""
    plain = rows.with_format(None).to_list()
    if options.result is not None:
        template = report.facts.get("template", "")
        result = result_json(benchmark, plain, report.scores, model=options.model, chat_template=template)
        _write(lambda path: write_json(path, result), options.result, "result", screen)
    if options.outputs is not None:
        lines = [json.dumps(row, ensure_ascii=False) for row in output_rows(benchmark, plain, report.scores)]

        def write(path: str) -> None:
            with whole_file(path) as unfinished:
                unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")

        _write(write, options.outputs, "outputs", screen)


def _write(write: Callable[[str], Any], path: str, name: str, screen: Screen) -> None:
    try:
        write(path)
    except OSError as error:
        raise UserError(f"{name}: {path} can't be written: {error.strerror or error}") from None
    screen.line(f"{name}: {path}")
