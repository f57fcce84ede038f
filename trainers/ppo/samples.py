"""Samples of an evaluation as a table: in the terminal, in a file, and where the run's metrics are reported."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback, WandbCallback

if TYPE_CHECKING:
    from hf_align.trainers.ppo.trainer import PPOTrainer

COLUMNS = ["prompt", "response", "reward", "KL"]
FOLDER = "eval_samples"


def report_samples(trainer: PPOTrainer, prefix: str) -> None:
    """Show the trainer's `eval_samples` and hand them to the reporters of `report_to` that take tables.

    These are TensorBoard (as text), Weights & Biases and trackio, under "eval/samples"; others get none. The file
    `eval_samples/PREFIX-STEP.json` in the output folder needs no reporter.

    Args:
        trainer: After it has logged the evaluation's metrics, by which reporters start their run.
        prefix: Of the metrics: "eval", or "eval_NAME" for one of several data sets.
    """
    if not trainer.is_world_process_zero() or not trainer.eval_samples:
        return
    step = trainer.state.global_step
    _write(Path(cast(str, trainer.args.output_dir)) / FOLDER / f"{prefix}-{step}.json", trainer.eval_samples)
    rows = [_row(sample) for sample in trainer.eval_samples]
    name = f"{prefix.replace('_', '/', 1)}/samples"  # as the reporters rename "eval_reward"
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            callback.tb_writer.add_text(name, _markdown(rows), step)
            callback.tb_writer.flush()
        elif isinstance(callback, TrackioCallback) or (isinstance(callback, WandbCallback) and callback._wandb.run):
            tracker: Any = callback._wandb if isinstance(callback, WandbCallback) else callback._trackio
            table = tracker.Table(columns=COLUMNS, data=rows)
            tracker.log({name: table, "train/global_step": step})
    if sys.stdout.isatty():
        _show(rows)


def _row(sample: dict[str, Any]) -> list[Any]:
    prompt = sample["prompt"]
    prompt = prompt if isinstance(prompt, str) else "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    return [prompt, sample["response"], sample["reward"], sample["kl"]]


def _write(path: Path, samples: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(json.dumps(samples, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def _markdown(rows: list[list[Any]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([*row[:2], *_numbers(row)] for row in rows)]
    return "\n".join(f"| {' | '.join(_cell(text) for text in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _numbers(row: list[Any]) -> list[str]:
    return [f"{number:.3g}" for number in row[2:]]


def _show(rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, title="Samples")
    for row in rows:
        table.add_row(Text(row[0][-200:]), Text(row[1][:400]), *_numbers(row))
    Console().print(table)
