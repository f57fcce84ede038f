"""Cost and safety of runs' records: `python -m benchmarks.record_cost MODEL [--steps N]` prints figures as JSON.

Cost: the seconds that a DPO training spends in the record's calls, as a share of its steps, with a log at each step and
at the default interval. Safety: processes that log as fast as they can are killed (SIGKILL) at random times, each with
a record of its own and all with one; what they had said to be logged is compared with what is read.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from peft import LoraConfig
from transformers.trainer_callback import PrinterCallback

from benchmarks.results import origin
from hf_align import DPOConfig, DPOTrainer
from hf_align.data.embedded.rows import make_pairs
from hf_align.tracking import RunRecord, RunSession, read_record

Result = TypeVar("Result")
PROCESSES = 8
WRITER = """
import sys
from hf_align.tracking import RunRecord
session = RunRecord(sys.argv[1], sys.argv[2]).session(sys.argv[3], prefix="dpo")
for step in range(1, 10**9):
    session.log(step, {f"metric-{number}": step + number / 100 for number in range(20)})
    print(step, flush=True)
"""


class TimedSession(RunSession):
    """A session that notes how long its calls take."""

    def __init__(self, session: RunSession) -> None:
        super().__init__(session.record, session.id, session.prefix)
        self.logs: list[float] = []
        self.checkpoints: list[float] = []

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log, timed."""
        self.logs.append(timed(lambda: super(TimedSession, self).log(*args, **kwargs))[0])

    def checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Record a checkpoint, timed."""
        self.checkpoints.append(timed(lambda: super(TimedSession, self).checkpoint(*args, **kwargs))[0])

    def end(self, *args: Any, **kwargs: Any) -> None:
        """End, timed with the record's own end, which closes the file."""
        self.ended = timed(lambda: (super(TimedSession, self).end(*args, **kwargs), self.record.close()))[0]


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of a call, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


class TimedTrainer(DPOTrainer):
    """A trainer that times its record."""

    timed: TimedSession

    def _begin(self, resume_from_checkpoint: Any) -> RunSession:
        self.begun, session = timed(lambda: super(TimedTrainer, self)._begin(resume_from_checkpoint))
        self.timed = TimedSession(session)
        return self.timed


def cost(model: str, steps: int, logging_steps: int) -> dict[str, Any]:
    """Seconds of a training's steps and of its record."""
    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            folder,
            max_steps=steps,
            logging_steps=logging_steps,
            save_steps=max(1, steps // 3),
            per_device_train_batch_size=4,
            report_to=[],
            disable_tqdm=True,
            bf16=False,
        )
        lora = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear")
        trainer = TimedTrainer(model, args=config, train_dataset=make_pairs("train", 64), peft_config=lora)
        trainer.remove_callback(PrinterCallback)  # standard output is the figures'
        trainer.train()
        runtime = next(entry["train_runtime"] for entry in trainer.state.log_history if "train_runtime" in entry)
    session = trainer.timed
    step = runtime / steps
    return {
        "steps": steps,
        "logging_steps": logging_steps,
        "seconds_a_step": step,
        "seconds_a_log": median(session.logs),
        "seconds_of_the_slowest_log": max(session.logs),
        "seconds_a_checkpoint": median(session.checkpoints),
        "share_of_a_step": (sum(session.logs) + sum(session.checkpoints)) / runtime,
        "seconds_at_start": trainer.begun,
        "seconds_at_end": session.ended,
    }


def kill(rounds: int, *, shared: bool, seed: int = 0) -> dict[str, Any]:
    """Rows that killed processes had been told are written, against those that are read."""
    draw, told, read, lost, damaged = random.Random(seed), 0, 0, 0, 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as root:
            folders = [Path(root, "all" if shared else str(number)) for number in range(PROCESSES)]
            records = {folder: RunRecord.start(folder, "dpo") for folder in dict.fromkeys(folders)}
            for record in records.values():
                record.close()
            started = [
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, folder, records[folder].id, f"stage-{number}"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for number, folder in enumerate(folders)
            ]
            for process in started:  # all of them log by now
                assert process.stdout is not None
                process.stdout.readline()
            for process in draw.sample(started, len(started)):
                time.sleep(draw.uniform(0, 0.1))
                process.kill()
            said = [1 + process.communicate()[0].count("\n") for process in started]
            for number, folder in enumerate(folders):
                [run] = read_record(folder)
                points = [p for p in run.metrics("metric-0") if p.stage == f"stage-{number}"]
                last = [p for p in run.metrics("metric-19") if p.stage == f"stage-{number}"]
                steps = [point.step for point in points]
                told, read = told + said[number], read + len(steps)
                lost += len(set(range(1, said[number] + 1)) - set(steps))
                damaged += steps != list(range(1, len(steps) + 1)) or len(last) != len(points)
    return {"kills": rounds * PROCESSES, "logs_told": told, "logs_read": read, "lost": lost, "damaged": damaged}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a language model")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--kill-rounds", type=int, default=20)
    options = parser.parse_args()
    figures = {
        "cost": [cost(options.model, options.steps, logging_steps) for logging_steps in (1, 10)],
        "killed": {
            name: kill(options.kill_rounds, shared=shared)
            for name, shared in (("own records", False), ("one record", True))
            if options.kill_rounds
        },
        **origin(),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
