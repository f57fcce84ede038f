"""Runs of the command line on a disk with little room, each in a forked process.

As a program: the folder where a small file system is mounted, one for results, the model's folder, and on standard
input the bytes that each run finds free.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from hf_align.cli.commands import train  # imported once, for all of them
from hf_align.cli.main import main as command
from hf_align.trainers import DPOTrainer

IMPORTED = (train, DPOTrainer)
FLAGS: dict[str, Any] = {
    **{
        "max_steps": 3,
        "save_steps": 1,
        "save_strategy": "steps",
        "per_device_train_batch_size": 2,
        "report_to": "none",
    },
    **{"per_device_train_batch_size": 2, "lora": "true", "bf16": "false", "use_cpu": "true", "logging_steps": 1},
}


def arguments(model: str, out: str, data: str) -> list[str]:
    """The command line of a run."""
    flags = {**FLAGS, "model": model, "output_dir": out, "train_dataset": data}
    return ["dpo", *(part for name, value in flags.items() for part in (f"--{name}", str(value)))]


def main() -> None:
    """Run once for each number."""
    disk, results, model = map(Path, sys.argv[1:4])
    data = results / "pairs.jsonl"
    rows = [{"prompt": f"Say {n}:", "chosen": f" {n}", "rejected": " no"} for n in range(8)]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for free in map(int, sys.stdin.read().split()):
        out = disk / "out"
        shutil.rmtree(out, ignore_errors=True)
        filler = disk / "filler"
        filler.unlink(missing_ok=True)
        with filler.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(disk).free - free)))
        child = os.fork()
        if child == 0:
            status = 99
            try:
                sys.stderr = (results / f"{free}.err").open("w")
                sys.stdout = (results / f"{free}.out").open("w")
                status = command(arguments(str(model), str(out), str(data)))
                sys.stderr.close()
                sys.stdout.close()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        filler.unlink()
        shutil.copytree(out, results / str(free)) if out.exists() else None
        (results / f"{free}.status").write_text(str(status))


if __name__ == "__main__":
    main()
