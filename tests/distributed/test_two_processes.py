"""Two processes must end with the weights of one with twice the batch, and find together what only one meets."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.trainers.injections import TWO_PROCESSES

SCRIPT = Path(__file__).with_name("train_script.py")


def launch(
    processes: int, batch: int, kind: str, model: str, out: Path, script: Path = SCRIPT
) -> tuple[dict[str, torch.Tensor], dict]:
    """The weights and logs of a script on that many processes; a single one is this process."""
    arguments = [str(script), kind, model, str(out), str(batch)]
    if processes == 1:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", arguments)
            runpy.run_path(str(script), run_name="__main__")
    else:
        start(processes, arguments)
    logs = json.loads((out / "logs.json").read_text())
    assert logs["processes"] == processes
    return load_file(out / "model.safetensors"), logs


def start(processes: int, arguments: list[str]) -> None:
    # Not `accelerate launch --cpu --num_processes 2`: without mpirun that starts one process and doesn't say so.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command += arguments
    root = SCRIPT.parents[2]
    # The script imports from `tests`; accelerate uses gloo if told to use the CPU.
    environment = os.environ | {"PYTHONPATH": str(root), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow  # 40 s of processor time, most of it imports of the processes
@pytest.mark.parametrize("kind", ["dpo", "reward", "ranking", "sft", "stream"])
def test_two_processes_equal_one_with_twice_the_batch_also_where_rows_do_not_go_round(
    kind: str, tiny_model_dir: str, tmp_path: Path
):
    one, one_logs = launch(1, 4, kind, tiny_model_dir, tmp_path / "one")
    two, two_logs = launch(2, 2, kind, tiny_model_dir, tmp_path / "two")
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=1e-5, rtol=1e-5, msg=name)
    assert len(one_logs["history"]) == len(two_logs["history"]) > 3
    for ours, theirs in zip(one_logs["history"], two_logs["history"], strict=True):
        counted = {name: value for name, value in ours.items() if name != "num_tokens"}  # TRL's, with padding rows
        assert counted == pytest.approx({name: theirs[name] for name in counted}, abs=1e-4)
    assert one_logs["eval"] == pytest.approx(two_logs["eval"], abs=1e-4)
    assert all(injection["held"] for injection in two_logs["injections"]), two_logs["injections"]
    assert one_logs["digits"] == (2**25 + 1) / 2 and two_logs["digits"] == (2**26 + 3) / 4, "float64 all the way"


@pytest.mark.slow
def test_what_one_process_meets_both_find_in_its_step_and_neither_saves(tmp_path: Path):
    start(2, [str(SCRIPT.parents[1] / "trainers" / "injections.py"), str(tmp_path)])
    rows = json.loads((tmp_path / "report.json").read_text())
    assert len(rows) == len(TWO_PROCESSES) and not [row for row in rows if not row["held"]]
