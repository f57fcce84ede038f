"""One run, from the file that describes it to the file with its result; also as a process of its own."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hf_align.errors import UserError
from hf_align.evaluation.continuations import Continuation
from hf_align.evaluation.grid import BASE, FAILED, RESULT
from hf_align.evaluation.policy_inputs import read_asked
from hf_align.experiments.benchmark.data import load_rows_of
from hf_align.experiments.benchmark.grid import BEST_OF_N, DATA, REWARD
from hf_align.experiments.benchmark.jobs import IDENTITY, Job
from hf_align.experiments.benchmark.measure import Conditions, measure_base, measure_best_of_n, measure_policy, release
from hf_align.experiments.benchmark.training import (
    TRAINED,
    TRAINING,
    peak_memory,
    reward_source,
    train_policy,
    train_reward,
    trained_reward,
)
from hf_align.files import write_json
from hf_align.progress import Progress, Silent
from hf_align.version import versions

HELD_OUT = "held_out"
RECORD = "run.sqlite"
DONE, PROBLEM, INTERRUPTED = 0, 1, 130


def execute(job: Job, out: Path, progress: Progress, *, keep: bool) -> dict[str, Any]:
    """Do one run, from where it stood, and write its result.

    Args:
        job: The run.
        out: The benchmark's folder.
        progress: Receiver of progress.
        keep: Whether its checkpoints and policy stay.

    Returns:
        The content of its `result.json`.

    Raises:
        UserError: Something can't be loaded, trained or judged.
        KeyboardInterrupt: After Ctrl-C; during training a checkpoint is saved first.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    folder, settings = job.folder(out), job.settings
    entry = {name: settings.get(name) for name in (*IDENTITY, "budget")}
    entry["options"] = settings.get("options", {})
    problems: list[str] = []
    if job.kind == REWARD:
        result = {**entry, **train_reward(job, out, progress), **surroundings()}
    elif job.kind == BASE:
        result = {**entry, **_base(job, out, progress, problems), **surroundings()}
    else:
        result = {**entry, **_policy(job, out, progress), **surroundings()}
    write_json(folder / RESULT, result)
    if not keep:
        _clear(folder)
    if problems:
        raise UserError("; ".join(problems))
    return result


def _policy(job: Job, out: Path, progress: Progress) -> dict[str, Any]:
    """Train the policy, unless nothing is to be trained, and measure it."""
    reward, base_texts = reward_source(job, out), partial(_base_texts, job, out)
    conditions = _conditions(job, out, progress)
    if job.kind == BEST_OF_N:
        numbers, penalty = job.settings["n"], job.settings["missing_eos_penalty"]
        measured = measure_best_of_n(conditions, reward, numbers, penalty, base_texts)
        untrained = {"rows": 0, "steps": 0, "training_seconds": 0.0, "stopped_by": None, "history": []}
        return {**untrained, "peak_memory_bytes": peak_memory(), **measured}
    trained = train_policy(job, out, progress)
    release()
    policy = str(job.folder(out) / trained.pop("policy"))
    return {**trained, **measure_policy(conditions, policy, reward, base_texts)}


def _base(job: Job, out: Path, progress: Progress, problems: list[str]) -> dict[str, Any]:
    """Measure the base, unless it is measured, and score its responses by every data set's reward.

    A reward that can't score them is noted in `problems`, and lacks in the result: all other figures need none.
    """
    path, conditions = job.folder(out) / RESULT, _conditions(job, out, progress)
    if path.exists():
        measured = json.loads(path.read_text(encoding="utf-8"))
    else:
        measured = {**measure_base(conditions), "rewards": {}, "scored_by": {}}
    texts, finished = measured["responses"], measured["figures"]["finished"]
    samples = [Continuation(text, 0, ended) for text, ended in zip(texts, finished, strict=True)]
    scored = measured.setdefault("scored_by", {})  # results of earlier versions have none
    for dataset in job.unscored(measured):
        measured["rewards"].pop(dataset, None)
        try:
            reward = trained_reward(job.sources["rewards"][dataset], dataset, out)
            measured["rewards"][dataset] = conditions.rewarded(reward, {"base": samples})["base"]
            scored[dataset] = job.sources["contents"][dataset]
        except Exception as error:  # of one data set's reward
            if not isinstance(error, UserError):
                traceback.print_exc()
            problems.append(f"rewards of {dataset}: {sentence_of(error)}")
    return {name: measured[name] for name in ("figures", "responses", "rewards", "scored_by")}


def _conditions(job: Job, out: Path, progress: Progress) -> Conditions:
    settings, rows = job.settings, load_rows_of(out / DATA / HELD_OUT)
    return Conditions(
        job.sources["model"],
        settings["quantization"],
        read_asked(rows),
        job.sources["judge"],
        settings["max_new_tokens"],
        settings["eval_batch_size"],
        settings["seed"],
        progress,
    )


def _base_texts(job: Job, out: Path) -> Sequence[str]:
    path = out / BASE / str(job.settings["seed"]) / RESULT
    return json.loads(path.read_text(encoding="utf-8"))["responses"]


def surroundings() -> dict[str, Any]:
    """Device, machine and versions of a run."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or f"CPU ({_cpu()})",
        "machine": {
            "system": platform.system(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
        },
        "versions": versions(),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _clear(folder: Path) -> None:
    """Leave result, log and record of a finished run, and a trained reward model."""
    if (record := folder / TRAINING / RECORD).exists():
        os.replace(record, folder / RECORD)
    shutil.rmtree(folder / TRAINING, ignore_errors=True)
    (folder / TRAINED).unlink(missing_ok=True)


def attempt(job: Job, out: Path, progress: Progress, *, keep: bool) -> int:
    """Do one run; whatever ends it is written to its `failed.json`.

    Returns:
        `DONE`, `PROBLEM` or, after Ctrl-C, `INTERRUPTED`.
    """
    try:
        execute(job, out, progress, keep=keep)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # whatever ends one run must not end the others
        if not isinstance(error, UserError):
            traceback.print_exc()
        write_json(job.folder(out) / FAILED, job.failure(sentence_of(error)))
        return PROBLEM
    return DONE


def sentence_of(error: Exception) -> str:
    """What ended a run, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text
    first = text.split(". ")[0][:300]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def main(arguments: Sequence[str]) -> int:
    """The process of one run.

    Args:
        arguments: The benchmark's folder, the run's place in it, and "keep" or "clear".
    """
    out, place, keep = arguments
    threading.Thread(
        target=_end_with_parent, args=(partial(os.read, sys.stdin.fileno(), 1), os._exit), daemon=True
    ).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    return attempt(Job.read(Path(out) / place), Path(out), Silent(), keep=keep == "keep")


def _end_with_parent(wait: Callable[[], Any], end: Callable[[int], Any]) -> None:
    """End this process when the one that started it is gone, which closes the pipe to it."""
    wait()
    end(PROBLEM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
