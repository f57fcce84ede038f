"""Samples of an evaluation as a table: in the terminal, in a file, and in the run's reporters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback, WandbCallback

from hf_align.files import write_json
from hf_align.printable import printable

COLUMNS = ["prompt", "response", "reward", "KL"]
MEASURES = ("reward", "win_rate")
"""What responses may be worth; samples have one of them, and the table calls it so."""
FOLDER = "eval_samples"


def report_samples(
    samples: list[dict[str, Any]], output_dir: Path, prefix: str, step: int, callbacks: Sequence[TrainerCallback]
) -> None:
    """Show an evaluation's samples and send them to those reporters in `report_to` that accept tables.

    These are TensorBoard (as text), Weights & Biases and trackio, under "eval/samples"; others get none. The file
    `eval_samples/PREFIX-STEP.json` in the output folder needs no reporter.

    Args:
        samples: Each with prompt, response, kl and one of `MEASURES`.
        output_dir: Output folder of the run.
        prefix: Prefix of the metrics: "eval", or "eval_NAME" for one of several data sets.
        step: Step of the evaluation.
        callbacks: Callbacks of a trainer that has logged the evaluation's metrics, which starts the reporters' runs.
    """
    write_json(output_dir / FOLDER / f"{prefix}-{step}.json", samples)
    rows, header = [row_of(sample) for sample in samples], header_of(samples)
    name = f"{prefix.replace('_', '/', 1)}/samples"  # in analogy to the reporters' renaming of "eval_reward"
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            callback.tb_writer.add_text(name, as_markdown(rows, header), step)
            callback.tb_writer.flush()
        elif isinstance(callback, TrackioCallback) or (isinstance(callback, WandbCallback) and callback._wandb.run):
            tracker: Any = callback._wandb if isinstance(callback, WandbCallback) else callback._trackio
            table = tracker.Table(columns=header, data=rows)
            tracker.log({name: table, "train/global_step": step})
    if sys.stdout.isatty():
        _show(rows, header)


def header_of(samples: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the columns."""
    measure = next(name for name in MEASURES if name in samples[0])
    return [measure.replace("_", " ") if column == "reward" else column for column in COLUMNS]


def row_of(sample: dict[str, Any]) -> list[Any]:
    """A sample as a row of the table: messages as text, one turn per line."""
    prompt = sample["prompt"]
    prompt = prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    return [prompt, sample["response"], next(sample[name] for name in MEASURES if name in sample), sample["kl"]]


def as_markdown(rows: list[list[Any]], header: Sequence[str] = COLUMNS) -> str:
    """The table in Markdown, every row on one line."""
    lines = [[*header], ["---"] * len(header), *([*row[:2], *_numbers(row)] for row in rows)]
    cells = [[" ".join(text.replace("|", "\\|").split()) for text in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _numbers(row: list[Any]) -> list[str]:
    return [f"{number:.3g}" for number in row[2:]]


def _show(rows: list[list[Any]], header: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, title="Samples")
    for row in rows:
        table.add_row(Text(printable(row[0][-200:])), Text(printable(row[1][:400])), *_numbers(row))
    Console().print(table)
