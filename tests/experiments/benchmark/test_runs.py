"""Runs of a grid: trained by their own trainers, measured alike, resumed, kept apart where they fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.evaluation.best_of_n import best_of_n_kl
from hf_align.experiments.benchmark.execute import attempt
from hf_align.experiments.benchmark.planned import Benchmark
from hf_align.experiments.benchmark.run import execute_benchmark
from hf_align.progress import Silent
from tests.experiments.benchmark.grids import SMALL, prepared, result_of, write_inputs

CLEAN = SMALL["datasets"]["clean"]


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_inputs()


class Lines(Silent):
    """Progress that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str, style: str = "") -> None:
        self.lines.append(text)


def run(benchmark: Benchmark) -> tuple[list[str], dict[str, str]]:
    """Its runs, in this process; the lines that were said, and failures."""
    progress = Lines()
    failures = execute_benchmark(benchmark, 0, progress)[1]
    return progress.lines, failures


def test_all_kinds_of_algorithms_are_trained_and_measured_alike(tiny_model_dir: str):
    algorithms = {
        **{name: {} for name in ("sft", "dpo", "online-dpo")},
        "rloo": {"algorithm": "ppo", "baseline": "group"},
        "hybrid": {"stages": ["ipo", {"algorithm": "ppo", "kl_coef": 0.1}]},
        "best-of-n": {"n": [1, 3], "missing_eos_penalty": 1.0},
    }
    benchmark = prepared(tiny_model_dir, algorithms=algorithms)
    lines, failures = run(benchmark)
    assert not failures and len(lines) == 7
    base = result_of("base/0")
    assert base["figures"]["kl"] == [0.0] * 5 and len(base["rewards"]["clean"]) == 5
    for label in algorithms:
        result, trained = result_of(f"clean/{label}/0"), label != "best-of-n"
        assert (result["label"], result["seed"], result["dataset"]) == (label, 0, "clean")
        assert (result["rows"], result["steps"]) == ((8, 4) if trained else (0, 0)), label
        assert result["stopped_by"] == ("samples" if trained else None)
        assert {name: len(values) for name, values in result["figures"].items()} == dict.fromkeys(
            ("kl", "length", "finished", "judge", "reward"), 5
        )
        lower = [float(sum(c.isascii() and c.islower() for c in text)) for text in result["responses"]]
        assert result["figures"]["judge"] == lower
        assert (result["responses"] == base["responses"]) is False, label
        assert sorted(path.name for path in Path("out/clean", label, "0").iterdir()) == (
            ["job.json", "result.json", "run.sqlite"] if trained else ["job.json", "result.json"]
        )
    by_n = result_of("clean/best-of-n/0")["by_n"]
    assert by_n["1"]["judge"] == base["figures"]["judge"]  # the first draw is the base's own response
    assert by_n["1"]["reward"] == base["rewards"]["clean"]
    penalised = [np.subtract(by_n[n]["reward"], np.logical_not(by_n[n]["finished"])) for n in ("1", "3")]
    assert (penalised[1] >= penalised[0]).all() and (penalised[1] > penalised[0]).any()
    assert by_n["3"]["kl"] == [best_of_n_kl(3)] * 5
    content = json.loads(Path("out/benchmark.json").read_text())
    assert content["grid"]["datasets"]["clean"]["flip"] == 0.0 and str(Path.cwd()) not in json.dumps(content)


def test_a_failure_is_recorded_and_the_others_go_on(tiny_model_dir: str):
    Path("bad.py").write_text("def reward(prompts, responses):\n    raise OSError('no such service')\n")
    algorithms = {"ppo": {"num_mini_batches": 2}, "dpo": {}}
    datasets = {"clean": CLEAN, "bad": {**CLEAN, "reward": "bad.py:reward"}}
    benchmark = prepared(tiny_model_dir, algorithms=algorithms, datasets=datasets)
    lines, failures = run(benchmark)
    assert set(failures) == {"base/0", "bad/ppo/0", "bad/dpo/0"}
    assert all("no such service" in reason for reason in failures.values())
    assert result_of("clean/ppo/0")["steps"] == 4
    failed = json.loads(Path("out/bad/ppo/0/failed.json").read_text())
    assert failed == {"dataset": "bad", "algorithm": "ppo", "label": "ppo", "seed": 0, "reason": failures["bad/ppo/0"]}
    good = Path("out/clean/ppo/0/result.json").read_bytes()
    repaired = prepared(tiny_model_dir, algorithms=algorithms, datasets={**datasets, "bad": CLEAN})
    lines, failures = run(repaired)  # what failed may be changed
    assert not failures and lines[0] == "2 of 5 runs are finished already"
    assert Path("out/clean/ppo/0/result.json").read_bytes() == good
    assert not list(Path("out").rglob("failed.json"))


def test_a_changed_grid_is_refused_by_name_and_a_longer_one_is_not(tiny_model_dir: str):
    assert not run(prepared(tiny_model_dir))[1]
    first = Path("out/clean/dpo/0/result.json").read_bytes()
    for values, message in (
        ({"options": {**SMALL["options"], "learning_rate": 0.5}}, "begun with parts.1.options.learning_rate 0.01, and"),
        ({"max_new_tokens": 5}, "out/base/0 was begun with max_new_tokens 4, and the grid has 5 now"),
        ({"datasets": {"clean": {**CLEAN, "flip": 0.25}}}, "begun with rows.pairs"),
        ({"judge": "vader"}, "out/base/0 was begun with judge score.py:lower"),
    ):
        with pytest.raises(UserError, match=message):
            run(prepared(tiny_model_dir, **values))
    more = {"clean": CLEAN, "flipped": {**CLEAN, "flip": 0.25}}
    lines, failures = run(prepared(tiny_model_dir, seeds=2, datasets=more, algorithms={"dpo": {}, "sft": {"seeds": 1}}))
    assert not failures and lines[0] == "1 of 8 runs are finished already"  # the base's response has a reward to come
    assert Path("out/clean/dpo/0/result.json").read_bytes() == first
    assert set(result_of("base/0")["rewards"]) == {"clean", "flipped"}
    assert result_of("flipped/dpo/0")["responses"] != result_of("clean/dpo/0")["responses"]
    Path("elsewhere").mkdir()
    Path("elsewhere/notes.txt").touch()
    with pytest.raises(UserError, match="elsewhere exists and holds no benchmark"):
        run(prepared(tiny_model_dir, output_dir="elsewhere"))
    with prepared(tiny_model_dir).locked(), pytest.raises(UserError, match="another benchmark is at work in out"):
        run(prepared(tiny_model_dir))


class Killed(BaseException):
    """Stands for a killed process."""


class KilledAt(Silent):
    """Progress that ends the run where a task has come so far."""

    def __init__(self, label: str, done: int) -> None:
        self.label, self.at = label, done

    def task(self, label: str, total: int) -> Any:
        from contextlib import nullcontext

        def advance(done: int, note: str = "") -> None:
            if label.startswith(self.label) and done >= self.at:
                raise Killed

        return nullcontext(advance)


def test_a_killed_grid_goes_on_to_the_same_result(tiny_model_dir: str):
    algorithms = {"ppo": {"save_steps": 1}}
    assert not run(prepared(tiny_model_dir, algorithms=algorithms, output_dir="whole"))[1]
    wanted = result_of("clean/ppo/0", "whole")
    for label, done in (("clean/ppo/0", 3), ("clean/ppo/0", 4), ("held-out prompts", 5)):
        benchmark = prepared(tiny_model_dir, algorithms=algorithms)
        with pytest.raises(Killed):
            execute_benchmark(benchmark, 0, KilledAt(label, done))
    assert not run(prepared(tiny_model_dir, algorithms=algorithms))[1]
    got = result_of("clean/ppo/0")
    for name in ("figures", "responses", "steps", "history"):
        assert got[name] == wanted[name], name
    shutil.rmtree("out")


def test_ctrl_c_leaves_a_run_unfinished_and_unfailed(tiny_model_dir: str):
    class Interrupting(Silent):
        def task(self, label: str, total: int) -> Any:
            raise KeyboardInterrupt

    benchmark = prepared(tiny_model_dir)
    benchmark.store()
    job = benchmark.jobs[0]
    job.begin(benchmark.out)
    assert attempt(job, benchmark.out, Interrupting(), keep=False) == 130
    assert sorted(path.name for path in job.folder(benchmark.out).iterdir()) == ["job.json"]
