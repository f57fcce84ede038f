"""Runs of a grid: trained by their own trainers, measured alike, resumed, kept apart where they fail."""

from __future__ import annotations

import json
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_align.errors import UserError
from hf_align.evaluation.best_of_n import best_of_n_kl
from hf_align.experiments.benchmark.execute import attempt
from hf_align.experiments.benchmark.jobs import Job
from hf_align.experiments.benchmark.planned import Benchmark
from hf_align.experiments.benchmark.run import do_runs, read_benchmark
from hf_align.progress import Silent
from tests.experiments.benchmark.grids import SMALL, prepared, result_of, write_inputs

CLEAN = SMALL["datasets"]["clean"]
SAVING = {**SMALL["options"], "save_strategy": "steps", "save_steps": 1}
BEST = {"best-of-n": {"n": [1, 3], "missing_eos_penalty": 1.0}}
"""An algorithm that trains nothing."""


class Lines(Silent):
    """Progress that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str, style: str = "") -> None:
        self.lines.append(text)


def run(benchmark: Benchmark) -> tuple[list[str], dict[str, str]]:
    """Its runs, in this process; the lines that were said of them, and failures."""
    progress = Lines()
    failures = do_runs(benchmark, 0, progress)
    return [line for line in progress.lines if (line.startswith("[") and "/0" in line) or "finished" in line], failures


@pytest.fixture(scope="module")
def finished(tiny_model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a finished grid of DPO and best-of-n."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_inputs()
        lines, failures = run(prepared(tiny_model_dir, algorithms={"dpo": {}, **BEST}))
    assert not failures and len(lines) == 3
    return folder


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_inputs()


def check_figures(place: str, base: dict[str, Any]) -> dict[str, Any]:
    """The result of a run, whose figures are those of its responses."""
    result = result_of(place)
    names = ("kl", "length", "finished", "judge", "reward")
    assert {name: len(values) for name, values in result["figures"].items()} == dict.fromkeys(names, 5)
    lower = [float(sum(c.isascii() and c.islower() for c in text)) for text in result["responses"]]
    assert result["figures"]["judge"] == lower
    assert result["responses"] != base["responses"], place
    return result


def test_policies_are_trained_and_all_measured_alike(finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(finished)
    base = result_of("base/0")
    assert base["figures"]["kl"] == [0.0] * 5 and len(base["rewards"]["clean"]) == 5
    trained = check_figures("clean/dpo/0", base)
    assert (trained["label"], trained["seed"], trained["dataset"]) == ("dpo", 0, "clean")
    assert (trained["rows"], trained["steps"], trained["stopped_by"]) == (8, 4, "samples")
    assert sum(trained["figures"]["kl"]) > 0 and trained["training_seconds"] > 0 < trained["peak_memory_bytes"]
    assert sorted(path.name for path in Path("out/clean/dpo/0").iterdir()) == ["job.json", "result.json"]
    assert not list(Path("out/data").rglob("cache-*")), "tokenised rows stay out of the results"
    best = check_figures("clean/best-of-n/0", base)
    assert (best["rows"], best["steps"], best["stopped_by"]) == (0, 0, None)
    by_n = best["by_n"]
    assert by_n["1"]["judge"] == base["figures"]["judge"]  # the first draw is the base's own response
    assert by_n["1"]["reward"] == base["rewards"]["clean"]
    penalised = [np.subtract(by_n[n]["reward"], np.logical_not(by_n[n]["finished"])) for n in ("1", "3")]
    assert (penalised[1] >= penalised[0]).all() and (penalised[1] > penalised[0]).any()
    assert by_n["3"]["kl"] == [best_of_n_kl(3)] * 5
    assert str(finished) not in Path("out/grid.json").read_text()


@pytest.mark.slow
def test_every_kind_of_algorithm_is_trained_by_its_trainer(tiny_model_dir: str):
    algorithms = {
        **{name: {} for name in ("sft", "ipo", "online-dpo", "ppo")},
        "cdpo": {"algorithm": "dpo", "label_smoothing": 0.1},
        "rloo": {"algorithm": "ppo", "baseline": "group"},
        "judged": {"algorithm": "online-dpo", "judge": {"function": "score.py:prefers"}},
        "hybrid": {"stages": ["ipo", {"algorithm": "ppo", "kl_coef": 0.1}]},
    }
    code = "\ndef prefers(prompt, first, second):\n    return float(max(first) > max(second))\n"
    Path("score.py").write_text(Path("score.py").read_text() + code)
    datasets = {"clean": CLEAN, "trained": {**CLEAN, "flip": 0.5, "reward": {"max_steps": 2, "report_to": "none"}}}
    lines, failures = run(prepared(tiny_model_dir, algorithms=algorithms, datasets=datasets))
    assert not failures and len(lines) >= 17
    base = result_of("base/0")
    for dataset in datasets:
        for label in algorithms:
            result = check_figures(f"{dataset}/{label}/0", base)
            assert (result["rows"], result["steps"]) == (8, 4), label
    assert [entry["step"] for entry in result_of("clean/hybrid/0")["history"]] == [1, 2, 3, 4]
    assert result_of("clean/sft/0")["responses"] != result_of("trained/sft/0")["responses"]


@pytest.mark.parametrize(
    ("budget", "stopped", "steps"),
    [
        ({"samples": 8, "kl": 1e-6, "kl_every": 2, "kl_prompts": 3}, "kl", 2),
        pytest.param({"seconds": 1e-6}, "seconds", 1, marks=pytest.mark.slow),
        pytest.param({"steps": 3}, "steps", 3, marks=pytest.mark.slow),
        pytest.param({"samples": 8, "seconds": 1e6}, "samples", 2, marks=pytest.mark.slow),
    ],
)
def test_a_budget_ends_a_training(budget: dict[str, Any], stopped: str, steps: int, tiny_model_dir: str):
    assert not run(prepared(tiny_model_dir, budget=budget))[1]
    result = result_of("clean/dpo/0")
    assert (result["stopped_by"], result["steps"], result["rows"]) == (stopped, steps, 4 * steps)
    if stopped == "kl":
        [[step, kl]] = result["kl_course"]
        assert step == 2 and kl > 1e-6


def test_a_failure_is_recorded_and_the_others_go_on(tiny_model_dir: str):
    Path("bad.py").write_text("def reward(prompts, responses):\n    raise OSError('no such service')\n")
    diverging = {"learning_rate": 1e30, "max_steps": 3, "report_to": "none"}
    datasets = {"clean": CLEAN, "bad": {**CLEAN, "reward": "bad.py:reward"}, "nan": {**CLEAN, "reward": diverging}}
    benchmark = prepared(tiny_model_dir, algorithms=BEST, datasets=datasets)
    lines, failures = run(benchmark)
    assert set(failures) == {"base/0", "bad/best-of-n/0", "nan/reward", "nan/best-of-n/0"}
    assert all("no such service" in failures[place] for place in ("base/0", "bad/best-of-n/0"))
    assert "rewards of nan: it needs nan/reward, which failed" in failures["base/0"]
    results = read_benchmark(benchmark)
    assert results is not None
    [clean] = results.summary["datasets"]
    assert clean["name"] == "clean" and clean["algorithms"][0]["reward"] is not None, "the base's figures are there"
    shutil.rmtree(Path("out/nan"))
    del datasets["nan"]
    good = Path("out/clean/best-of-n/0/result.json").read_bytes()
    failed = json.loads(Path("out/bad/best-of-n/0/failed.json").read_text())
    assert failed == {
        **{"dataset": "bad", "algorithm": "best-of-n", "label": "best-of-n", "seed": 0},
        "reason": failures["bad/best-of-n/0"],
    }
    lines, failures = run(prepared(tiny_model_dir, algorithms=BEST, datasets={**datasets, "bad": CLEAN}))
    assert not failures and lines[0] == "1 of 3 runs are finished already"  # what failed may be changed
    assert Path("out/clean/best-of-n/0/result.json").read_bytes() == good
    assert not list(Path("out").rglob("failed.json"))


def test_the_base_is_scored_again_by_a_reward_that_was_another_one():
    sources = {"rewards": dict.fromkeys("abc", "reward"), "contents": {"a": "new", "b": "new", "c": "new"}}
    job = Job("base", "base/0", {}, sources)
    result = {"rewards": {"a": [1.0], "b": [1.0]}, "scored_by": {"a": "new", "b": "old"}}
    assert job.unscored(result) == ["b", "c"]
    assert job.unscored({"rewards": {"a": [1.0], "b": [1.0]}}) == ["c"], "results of earlier versions don't say by whom"


def test_a_changed_grid_is_refused_by_name_and_a_longer_one_is_not(tiny_model_dir: str, finished: Path):
    shutil.copytree(finished / "out", "out")
    for values, message in (
        ({"options": {**SMALL["options"], "learning_rate": 0.5}}, "begun with options.learning_rate 0.01, and"),
        ({"max_new_tokens": 5}, "out/base/0 was begun with max_new_tokens 4, and the grid has 5 now"),
        ({"datasets": {"clean": {**CLEAN, "flip": 0.25}}}, "begun with flip 0.0, and the grid has 0.25 now"),
        ({"budget": {"samples": 12, "passes": 2}}, "begun with budget.samples 8, and the grid has 12 now"),
        ({"judge": "vader"}, "out/base/0 was begun with judge score.py:lower"),
    ):
        with pytest.raises(UserError, match=message):
            run(prepared(tiny_model_dir, **values))
    first = Path("out/clean/dpo/0/result.json").read_bytes()
    more = {"clean": CLEAN, "few": {**CLEAN, "limit": 8}}
    algorithms = {"dpo": {"datasets": ["clean"]}, **BEST}
    lines, failures = run(prepared(tiny_model_dir, datasets=more, algorithms=algorithms))
    assert not failures and lines[0] == "2 of 4 runs are finished already"  # the base's have a reward to come
    assert Path("out/clean/dpo/0/result.json").read_bytes() == first
    assert set(result_of("base/0")["rewards"]) == {"clean", "few"}


def test_a_folder_of_something_else_or_in_use_is_refused(tiny_model_dir: str):
    Path("elsewhere").mkdir()
    Path("elsewhere/notes.txt").touch()
    with pytest.raises(UserError, match="elsewhere exists and holds no benchmark"):
        run(prepared(tiny_model_dir, output_dir="elsewhere"))
    with prepared(tiny_model_dir).locked(), pytest.raises(UserError, match="another benchmark is at work in out"):
        run(prepared(tiny_model_dir))


class Killed(BaseException):
    """Stands for a killed process."""


class EndingAt(Silent):
    """Progress that ends the run where a task has come so far."""

    def __init__(self, label: str, done: int, error: type[BaseException] = Killed) -> None:
        self.label, self.done, self.error = label, done, error

    def task(self, label: str, total: int) -> AbstractContextManager[Any]:
        def advance(done: int, note: str = "") -> None:
            if label.startswith(self.label) and done >= self.done:
                raise self.error

        return nullcontext(advance)


def killed(benchmark: Benchmark, label: str, done: int) -> None:
    with pytest.raises(Killed):
        do_runs(benchmark, 0, EndingAt(label, done))


def check_same(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name in ("figures", "responses", "rows", "steps", "history"):
        assert got[name] == wanted[name], name


def test_a_killed_grid_goes_on_to_the_same_result(tiny_model_dir: str, finished: Path):
    values: dict[str, Any] = {"options": {**SAVING, "logging_steps": 1}}
    killed(prepared(tiny_model_dir, **values), "clean/dpo/0", 3)
    assert Path("out/clean/dpo/0/training/checkpoint-2").is_dir()
    killed(prepared(tiny_model_dir, **values), "held-out prompts", 5)
    trained = json.loads(Path("out/clean/dpo/0/trained.json").read_text())
    assert trained["steps"] == 4
    assert not run(prepared(tiny_model_dir, **values))[1]
    check_same(result_of("clean/dpo/0"), result_of("clean/dpo/0", str(finished / "out")))


@pytest.mark.slow
def test_killed_samplers_and_hybrids_go_on_to_the_same_result(tiny_model_dir: str):
    values: dict[str, Any] = {"options": SAVING, "algorithms": {"ppo": {}, "hybrid": {"stages": ["dpo", "ppo"]}}}
    assert not run(prepared(tiny_model_dir, **values, output_dir="whole"))[1]
    for label, done in (("clean/ppo/0", 3), ("clean/ppo/0", 4), ("dpo", 1), ("ppo", 2)):  # the latter two the hybrid's
        killed(prepared(tiny_model_dir, **values), label, done)
    assert not run(prepared(tiny_model_dir, **values))[1]
    for label in ("ppo", "hybrid"):
        check_same(result_of(f"clean/{label}/0"), result_of(f"clean/{label}/0", "whole"))


def test_ctrl_c_leaves_a_run_unfinished_and_unfailed(tiny_model_dir: str):
    benchmark = prepared(tiny_model_dir, algorithms=BEST)
    benchmark.store()
    job = benchmark.jobs[0]
    job.begin(benchmark.out)
    assert attempt(job, benchmark.out, EndingAt("held-out", 0, KeyboardInterrupt), keep=False) == 130
    assert sorted(path.name for path in job.folder(benchmark.out).iterdir()) == ["job.json"]
