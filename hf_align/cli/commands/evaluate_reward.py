"""`hf-align evaluate reward`: the report on a reward model, in the terminal, as JSON and as one page."""

import argparse
import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.cli.report_files import check_files, first_rows, people_rows, show_report, write_file
from hf_align.collators.checks import as_dataset
from hf_align.data.sources import EMBEDDED
from hf_align.errors import UserError
from hf_align.evaluation import Remark, RewardReport, reward_report
from hf_align.evaluation.benchmark_rows import Benchmark, output_rows, recognise, result_json, with_prompt
from hf_align.files import whole_file, write_json
from hf_align.model_cards.files import CARD, add_evaluations, is_own_text
from hf_align.rewards.named import read_reward
from hf_align.rewards.vader import vader_judge
from hf_align.tracking.facts import command_line

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
    check_files(options, ("report", "json", "result", "outputs"))
    if options.card:
        _check_card(Path(options.model))
    with quiet_libraries(screen):
        judge = _judge(options.judge)
        rows = first_rows(with_prompt(as_dataset(people_rows(options), "data", ())), options.limit)
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
            dropout_passes=options.dropout_passes,
            progress=screen,
        )
    report.facts |= {"data": options.data, "command": command_line(["hf-align", *options.arguments])}
    if options.data == EMBEDDED:
        report.remarks.append(MADE_PROMPTS)
    show_report(report, options, screen)
    if options.card:
        card = str(Path(options.model) / CARD)
        write_file(lambda path: add_evaluations(Path(path).parent, report.evaluations()), card, "card", screen)
    if benchmark is not None:
        _write_benchmark(benchmark, rows, report, options, screen)


def _check_card(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"card is for a saved model's folder, and there is none called {folder}; give --model DIR")
    if is_own_text(folder):
        raise UserError(
            f"card: {folder / CARD} was written by hand and would be kept; leave the flag out, or delete the file to "
            "get a new one"
        )


def _judge(name: str | None) -> Any:
    if name is None:
        return None
    return vader_judge if name == "vader" else read_reward(name, "judge")


def _write_benchmark(
    benchmark: Benchmark, rows: Dataset, report: RewardReport, options: argparse.Namespace, screen: Screen
) -> None:
    """Write the result and the outputs that the benchmark's own script writes, where they are asked for."""
    plain = rows.with_format(None).to_list()
    if options.result is not None:
        template = report.facts.get("template", "")
        result = result_json(benchmark, plain, report.scores, model=options.model, chat_template=template)
        write_file(lambda path: write_json(path, result), options.result, "result", screen)
    if options.outputs is not None:
        lines = [json.dumps(row, ensure_ascii=False) for row in output_rows(benchmark, plain, report.scores)]

        def write(path: str) -> None:
            with whole_file(path) as unfinished:
                unfinished.write_text("\n".join(lines) + "\n", encoding="utf-8")

        write_file(write, options.outputs, "outputs", screen)
