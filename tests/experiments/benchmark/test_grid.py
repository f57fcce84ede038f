"""Grids: everything wrong is refused in one sentence before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.experiments.benchmark.prepare import prepare_benchmark
from hf_align.experiments.recipe import read_recipe
from tests.experiments.benchmark.grids import SMALL, prepared, write_inputs

CLEAN = SMALL["datasets"]["clean"]


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_inputs()


def of_data(**values: Any) -> dict[str, Any]:
    return {"datasets": {"clean": {**CLEAN, **values}}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"judges": "vader"}, "judges is not a valid key; did you mean judge?"),
        ({"judge": ""}, "judge is missing: write `judge: ...` in the grid or pass --judge"),
        ({"judge": "self"}, "judge is the policy itself"),
        ({"judge": "score.py:letters"}, "score.py:letters, which policies are trained by, too"),
        ({"judge": "score.py:none"}, "judge: score.py has no function none"),
        ({"model": "nowhere/"}, "nowhere"),
        ({"seeds": 0}, "seeds is 0; give a number from 1, or a list"),
        ({"seeds": [1, 1]}, "different numbers from 0"),
        ({"quantization": "4bit", "lora": None}, "quantised weights train only through an adapter"),
        ({"prompts": {"limit": 2}}, "prompts has no data"),
        ({"prompts": "pairs.jsonl"}, "no pairs are left beside the held-out prompts"),
        ({"budget": {"sample": 8}}, "budget.sample is not a valid key; did you mean samples?"),
        ({"budget": {"samples": 0}}, "budget.samples: samples is 0"),
        ({"budget": {"samples": 6}}, "algorithms.dpo: budget: samples is 6, and a step takes 4"),
        ({"budget": {"kl": 1.0, "kl_prompts": 2}, "lora": None}, "which is the model without its adapter; give lora"),
        ({"options": {"learning_rat": 1}}, "options.learning_rat is not a valid key; did you mean learning_rate?"),
        ({"options": {"max_steps": 1}}, "options.max_steps is set by the benchmark for all runs alike"),
        (of_data(flip=1.0), "datasets.clean.flip is 1.0; it is a share of the pairs"),
        (of_data(pair="x"), "datasets.clean.pair is not a valid key; did you mean pairs?"),
        (of_data(reward={"learning_rte": 1}), "learning_rte is not a valid key; did you mean learning_rate?"),
        (of_data(reward="nowhere/reward/x"), "datasets.clean.reward: there is no folder nowhere/reward/x"),
        ({"datasets": {"a/b": CLEAN}}, "datasets.a/b: 'a/b' names a folder"),
        ({"datasets": {"base": CLEAN}}, "base is a folder of the benchmark's own"),
        ({"algorithms": {"dop": {}}}, "algorithms.dop: there is no algorithm dop; did you mean dpo?"),
        ({"algorithms": {"reward": {}}}, "reward is a folder of the benchmark's own"),
        ({"algorithms": {"r": {"algorithm": "reward"}}}, "reward trains a reward model, not a policy"),
        ({"algorithms": {"dpo": {"bta": 1}}}, "algorithms.dpo.bta is not a valid key; did you mean beta?"),
        ({"algorithms": {"dpo": {"beta": "x"}}}, "algorithms.dpo.beta expects a number, got 'x'"),
        ({"algorithms": {"dpo": {"beta": -1.0}}}, "algorithms.dpo: beta is -1.0; it must be above 0"),
        ({"algorithms": {"dpo": {"seed": 1}}}, "algorithms.dpo.seed is set by the benchmark"),
        ({"algorithms": {"dpo": {"seeds": 2}}}, "algorithms.dpo.seeds is 2, and the grid has 1 seeds"),
        (
            {"algorithms": {"dpo": {"datasets": ["x"]}}},
            "algorithms.dpo.datasets has x, and the grid's data sets are clean",
        ),
        ({"algorithms": {"best-of-n": {"n": [0]}}}, "algorithms.best-of-n.n is .0.; give different numbers from 1"),
        ({"algorithms": {"hybrid": {"stages": []}}}, "algorithms.hybrid.stages is a list of stages"),
        ({"algorithms": {"hybrid": {"stages": ["dpo", "dpoo"]}}}, "hybrid: stage 2: there is no algorithm dpoo"),
        ({"algorithms": {"hybrid": {"stages": ["dpo", "ipo", "ipo"]}}}, "samples is 8, and the stage's share of it is"),
        (
            {"algorithms": {"hybrid": {"beta": 1}}},
            "algorithms.hybrid.beta is no key of a hybrid; give it to its stages",
        ),
        ({"algorithms": {"ppo": {}}, **of_data(reward=None)}, "trained by a reward, and data set clean has none"),
        (
            {"algorithms": {"dpo": {}}, "datasets": {"clean": {"prompts": "pairs.jsonl"}}},
            "dpo trains on pairs, and data set clean has none; give pairs",
        ),
    ],
)
def test_what_is_wrong_is_refused(values: dict[str, Any], message: str, tiny_model_dir: str):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        prepared(**{"model": tiny_model_dir, **values})
    assert not Path("out").exists()


def test_flags_reach_any_depth_and_messages_name_the_line(tiny_model_dir: str):
    text = "datasets:\n  clean:\n    pairs: pairs.jsonl\nalgorithms:\n  online-dpo:\n    beta: 0.1\n"
    Path("grid.yaml").write_text(text)
    flags = [
        "--model",
        tiny_model_dir,
        "--datasets.clean.reward",
        "score.py:letters",
        "--algorithms.online-dpo.beta",
        "2",
    ]
    flags += ["--judge", "score.py:lower", "--prompts", "held_out.jsonl", "--output_dir", "out"]
    flags += ["--budget.samples", "8", "--options.per_device_train_batch_size", "4", "--options.num_samples", "2"]
    benchmark = prepare_benchmark(read_recipe("grid.yaml", flags))
    [part] = benchmark.trainings["clean", "online-dpo"].parts
    assert part.options["beta"] == 2.0
    assert benchmark.grid.datasets["clean"].reward == "score.py:letters"
    Path("grid.yaml").write_text(text.replace("beta", "bta"))
    with pytest.raises(UserError, match=r"grid.yaml, line 6: algorithms.online-dpo.bta is not a valid key"):
        prepare_benchmark(read_recipe("grid.yaml", [*flags[:2], *flags[4:]]))


def test_a_grid_lists_its_runs_and_what_they_wait_for(tiny_model_dir: str):
    benchmark = prepared(
        tiny_model_dir,
        seeds=3,
        algorithms={"dpo": {}, "ppo": {"seeds": 2}, "best-of-n": {"n": [2, 1], "seeds": [2], "datasets": ["clean"]}},
        datasets={
            "clean": CLEAN,
            "few": {"pairs": "pairs.jsonl", "limit": 8, "budget": {"samples": 16}, "reward": {"max_steps": 1}},
        },
    )
    jobs = {job.place: job for job in benchmark.jobs}
    assert list(jobs) == [
        *("base/0", "base/1", "base/2", "few/reward"),
        *("clean/dpo/0", "clean/dpo/1", "clean/dpo/2", "few/dpo/0", "few/dpo/1", "few/dpo/2"),
        *("clean/ppo/0", "clean/ppo/1", "few/ppo/0", "few/ppo/1", "clean/best-of-n/2"),
    ]
    assert jobs["base/0"].needs == jobs["few/ppo/1"].needs == ("few/reward",)
    assert jobs["clean/ppo/0"].needs == ()
    assert jobs["few/dpo/0"].work > jobs["clean/dpo/0"].work < jobs["clean/ppo/0"].work
    assert benchmark.trainings["few", "dpo"].parts[0].length.steps == 8
    assert ("few", "ppo", 1) in benchmark.cells and len(benchmark.cells) == 11
