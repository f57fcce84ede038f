"""Whether what the planner proposes for tight limits stays below them: `python -m benchmarks.planner_limits`, on a CPU.

For each limit the planner names the largest micro-batch that fits. It is trained for two steps in a process of its own,
whose maximum resident set (VmHWM, less what the process had before the model was loaded) must stay below the limit;
and so is one of two rows more, which must not. Each pair of setting and limit has a file in
`benchmarks/results/planner/limits/`; finished ones are skipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.planner import MAPPED, RESULTS
from benchmarks.planner_run import Resident, Run, save_model
from hf_align.files import write_json
from hf_align.planning.fitting import largest_batch

TOKENS = (128, 128)
"""Tokens of a prompt and of a response."""
LIMITS = {  # MiB
    "wide_reward_bf16_none": 700,
    "wide_dpo_fp32_selective": 1000,
    "wide_dpo_4bit_none": 600,
    "wide_ipo_8bit_selective": 800,
    "wide_ppo_bf16_none": 600,
    "wide_ppo_fp32_selective": 850,
    "deep_reward_fp32_none": 800,
    "deep_reward_8bit_selective": 600,
    "deep_dpo_bf16_none": 550,
    "deep_dpo_4bit_selective": 500,
    "deep_ipo_bf16_selective": 450,
    "deep_ppo_fp32_none": 600,
}
"""Limit of each setting."""


def proposed(name: str, limit: float, model: Path, place: Path) -> tuple[int, list[int]]:
    """Rows of the largest micro-batch that fits by the plan, and bytes planned for it and one row more."""
    settings = Run(name, (1, *TOKENS)).plan(model, place).settings
    settings = dataclasses.replace(settings, device=dataclasses.replace(settings.device, memory=limit))

    rows = largest_batch(settings)
    assert rows is not None, f"{name}: not even one row fits"
    planned = [settings.changed(per_device_train_batch_size=each).device_bytes for each in (rows, rows + 1)]
    return rows, [round(each) for each in planned]


def train(name: str, rows: int, model: Path) -> int:
    """Bytes that two steps took in this process."""
    with tempfile.TemporaryDirectory() as place:
        save_model("tiny", Path(place, "tiny"))
        Run(name, (2, *TOKENS)).train(Path(place, "tiny"), Path(place, "out"))  # what libraries take
        run, memory = Run(name, (rows, *TOKENS)), Resident(follow=False)
        run.values["max_steps"] = 2
        run.train(model, Path(place, "out"), memory)
    return memory.measured["measured"]


def check(name: str, models: Path) -> dict[str, Any]:
    """A pair's proposal, and what it and two rows more take."""
    limit, model = LIMITS[name] * 2**20, models / name.split("_")[0]
    with tempfile.TemporaryDirectory() as place:
        rows, planned = proposed(name, limit, model, Path(place))
    taken = {}
    for each in (rows, rows + 2):
        command = [sys.executable, "-m", "benchmarks.planner_limits", "--train", name, str(each), str(model)]
        done = subprocess.run(command, env={**os.environ, **MAPPED}, capture_output=True, text=True, check=True)
        taken[each] = int(done.stdout.strip().splitlines()[-1])
    return {"setting": name, "limit": limit, "tokens": TOKENS, "rows": rows, "planned": planned, "taken": taken}


def main() -> None:
    """Check the pairs that are not finished, and print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "limits", help="folder of the results (%(default)s)")
    parser.add_argument("--settings", default="", help="regular expression: only settings whose name has it")
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        name, rows, model = options.train
        print(train(name, int(rows), Path(model)))
        return
    os.environ.update(MAPPED)  # for the plan's margin
    options.out.mkdir(parents=True, exist_ok=True)
    names = [name for name in LIMITS if re.search(options.settings, name)]
    with tempfile.TemporaryDirectory() as place:
        models = Path(place)
        for shape in {name.split("_")[0]: None for name in names}:
            save_model(shape, models / shape)
        for name in names:
            if not (path := options.out / f"{name}.json").exists():
                write_json(path, check(name, models))
            result = json.loads(path.read_text())
            taken = ", ".join(f"{rows} rows {size / 2**20:.0f}" for rows, size in result["taken"].items())
            print(
                f"{name}: limit {result['limit'] / 2**20:.0f} MiB, {result['rows']} rows proposed; {taken}", flush=True
            )


if __name__ == "__main__":
    main()
