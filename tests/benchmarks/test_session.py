from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.session import ROOT, RunFailed, compare, ratios, run_side, summarise
from benchmarks.spec import Spec


def run(seconds: list[float], peak: int) -> dict[str, Any]:
    return {"seconds": seconds, "memory": {"peak": peak}, "losses": [0.7], "versions": {"torch": "2"}, "threads": 2}


def test_warm_up_steps_do_not_count_and_runs_are_paired():
    ours = summarise([run([9.0, 2.0, 4.0, 3.0], 50), run([9.0, 1.0, 1.0, 2.0], 60)], 1, tokens=600, episodes=None)
    assert ours["step_seconds_of_runs"] == [3.0, 1.0]
    assert (ours["step_seconds"], ours["tokens_per_second"], ours["peak_bytes"]) == (2.0, 300.0, 60)
    peer = summarise([run([9.0, 6.0], 100), run([1.0, 4.0], 90)], 1, tokens=600, episodes=16)
    assert peer["episodes_per_second"] == 16 / 5
    both = ratios(ours, peer)
    assert both["times_faster"] == {"median": 3.0, "least": 2.0, "most": 4.0, "pairs": [2.0, 4.0]}
    assert both["memory_share"]["pairs"] == [50 / 100, 60 / 90]


def test_first_steps_are_compared_number_by_number_and_token_by_token():
    ours = {"loss": 0.6931, "logps/chosen": -200.0, "old_logps": [[-1.0, -2.0]], "only_ours": 1.0}
    peer = {"loss": 0.6932, "logps/chosen": -201.0, "old_logps": [[-1.01, -2.0]]}
    rows = compare(ours, peer, "fp32")
    assert list(rows) == ["logps/chosen", "loss", "old_logps"]
    assert [rows[name]["same"] for name in rows] == [False, True, False]
    assert rows["old_logps"]["difference"] == pytest.approx(0.005)
    assert all(row["same"] for row in compare(ours, peer, "bf16").values())
    assert not compare({"loss": float("nan")}, {"loss": 0.7}, "bf16")["loss"]["same"]


@pytest.mark.slow  # a process that imports everything only to fail
def test_a_run_that_fails_says_where_its_output_is(tmp_path: Path):
    nobody: Any = "nobody"  # fails before it imports a trainer
    spec = Spec(task="dpo", side=nobody, model=str(tmp_path / "none"), rows=str(tmp_path / "none"), out=str(tmp_path))
    with pytest.raises(RunFailed, match=r"the run of nobody failed: KeyError: 'nobody' .*log\.txt"):
        run_side(spec)


def test_a_run_finds_the_peer_first_and_what_the_user_has_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []

    def started(*args: Any, env: dict[str, str], **kwargs: Any) -> Any:
        seen.append(env["PYTHONPATH"].split(os.pathsep))
        return subprocess.CompletedProcess(args, 1)

    monkeypatch.setattr(subprocess, "run", started)
    monkeypatch.setenv("PYTHONPATH", "the-users")
    with pytest.raises(RunFailed):
        run_side(Spec(task="dpo", side="trl", model="", rows="", out=str(tmp_path)), tmp_path / "peer")
    assert seen == [[str(tmp_path / "peer"), str(ROOT), "the-users"]]
