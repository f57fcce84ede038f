"""How the scripts of online trainers end: train, evaluate, save, and write down what the tests compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMINGS = ("runtime", "per_second", "flos", "epoch")


def train_and_report(trainer: Any, out: Path, more: Callable[[], dict[str, Any]] = dict) -> None:
    """Write `logs.json` with "history", "eval" and "processes", without what differs by the time it took.

    Args:
        trainer: An online trainer.
        out: Its folder.
        more: Gives further entries, after the training.
    """
    trainer.train()
    evaluated = trainer.evaluate()
    trainer.save_model()
    history = [
        {name: value for name, value in log.items() if not name.startswith("time/")}
        for log in trainer.state.log_history
        if "loss" in log
    ]
    if trainer.is_world_process_zero():
        result = {key: value for key, value in evaluated.items() if not any(word in key for word in TIMINGS)}
        logs = {"history": history, "eval": result, "processes": trainer.accelerator.num_processes, **more()}
        (out / "logs.json").write_text(json.dumps(logs))
    # At the interpreter's exit, gloo's threads sometimes outlive the group and abort the process.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
