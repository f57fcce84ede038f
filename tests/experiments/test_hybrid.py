"""Recipes of hybrid runs: keys of the run, of all stages and of one, their places, and what is written back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_align.errors import UserError
from hf_align.experiments.hybrid import HybridRun, prepare_hybrid
from hf_align.experiments.recipe import read_recipe
from hf_align.trainers.hybrid.state import options_of
from hf_align.trainers.rollouts.schedule import seed_of
from tests.trainers.hybrid.run import save_toy

SCORE = "def words(prompts, responses):\n    return [float(len(text.split())) for text in responses]\n"
RECIPE = """\
model: toy
reward: score.py:words
train_dataset: pairs.jsonl
output_dir: out
seed: 5
lora: {r: 2, target_modules: all-linear}
max_steps: 2
learning_rate: 1e-3
per_device_train_batch_size: 4
beta: 0.2
stages:
  - algorithm: dpo
  - algorithm: ppo
    max_new_tokens: 3
    learning_rate: 1e-2
  - algorithm: ipo
    beta: 0.5
    reference: previous
"""


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("score.py").write_text(SCORE)
    rows = [{"prompt": "a", "chosen": " b", "rejected": " c"}, {"prompt": "b", "chosen": " d", "rejected": " a"}]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("recipe.yaml").write_text(RECIPE)


def prepared(*flags: str, text: str | None = None) -> HybridRun:
    if text is not None:
        Path("recipe.yaml").write_text(text)
    return prepare_hybrid(read_recipe("recipe.yaml", flags))


def options(run: HybridRun, name: str) -> list[Any]:
    save_toy(Path("toy"))
    return [getattr(each.args, name, None) for each in run.trainer().stages]


def test_options_at_the_top_are_those_of_every_stage_that_has_them():
    run = prepared()
    assert options(run, "learning_rate") == [1e-3, 1e-2, 1e-3]
    assert options(run, "beta") == [0.2, None, 0.5] and options(run, "max_steps") == [2, 2, 2]
    assert options(run, "seed") == [5, seed_of(5, 2), seed_of(5, 3)]
    stages = run.trainer().stages
    assert [each.hand_over.reference for each in stages] == ["start", "start", "previous"]
    assert "reward" in stages[1].scoring and not stages[0].scoring
    assert [str(each.folder) for each in stages] == ["out/stage-1-dpo", "out/stage-2-ppo", "out/stage-3-ipo"]


def test_flags_override_a_stage_counted_from_one():
    flags = ("--stages.1.beta", "0.3", "--stages.2.until.kl", "4.0", "--stages.3.seed=9")
    run = prepared(*flags, "--stages.1.max_steps", "5", "--max_steps", "4")
    assert options(run, "beta") == [0.3, None, 0.5] and options(run, "seed")[2] == 9
    assert options(run, "max_steps") == [5, 4, 4]
    until = run.trainer().stages[1].until
    assert until is not None and until.kl == 4.0


def test_without_stages_there_are_dpo_ppo_and_ipo():
    run = prepared(text=RECIPE.partition("stages:")[0])
    assert [each.run.algorithm.name for each in run.stages] == ["dpo", "ppo", "ipo"]


REFUSED = [
    (
        "beta: 0.5",
        "bta: 0.5",
        r"stage 3 \(ipo\): .* line 17: stages.3.bta is not a valid key; did you mean beta\?",
    ),
    (
        "max_new_tokens: 3",
        "loss_type: ipo",
        r"stage 2 \(ppo\): recipe.yaml, line 14: stages.2.loss_type .* it belongs to ",
    ),
    ("max_new_tokens: 3", "max_new_tokens: few", r"line 14: stages.2.max_new_tokens expects a whole number, got 'few'"),
    ("seed: 5", "sed: 5", r"recipe.yaml, line 5: sed is not a valid key; did you mean seed\?"),
    ("seed: 5", "kl_budget: -1.0", "kl_budget is -1.0; it must be above 0 or None"),
    (
        "    beta: 0.5",
        "    model: other",
        "line 17: stages.3.model is the whole run's, .* write it at the top",
    ),
    (
        "    beta: 0.5",
        "    ref_model: other",
        "line 17: stages.3.ref_model is the whole run's, .* use reference",
    ),
    ("- algorithm: ipo", "- algorithm: reward", r"stage 3 \(reward\): reward trains a reward model"),
    ("- algorithm: ipo", "- max_steps: 1", "line 11: stages: stage 3 has no algorithm; write `- algorithm: dpo`"),
    (
        "reference: previous",
        "adapter: old",
        "line 18: stages.3.adapter expects 'continue' or 'merge' or 'new'",
    ),
    ("reference: previous", "until: {metric: loss}", r"stage 3 \(ipo\): until.metric is looked at in evaluations"),
    ("train_dataset: pairs.jsonl\n", "", r"stage 1 \(dpo\): train_dataset is missing"),
    ("model: toy\n", "", "model is missing"),
]


@pytest.mark.parametrize(("before", "after", "message"), REFUSED, ids=[after or before for before, after, _ in REFUSED])
def test_a_wrong_key_is_named_with_its_stage_and_place(before: str, after: str, message: str):
    assert before in RECIPE
    save_toy(Path("toy"))
    with pytest.raises(UserError, match=message):
        prepared(text=RECIPE.replace(before, after)).trainer()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--stages.0.beta", "has entries 1 to 3 there; write --stages.1.KEY"),
        ("--stages.4.beta", "has entries 1 to 3"),
        ("--stages.2", "has entries 1 to 3"),
    ],
)
def test_a_flag_of_no_stage_is_refused(flag: str, message: str):
    with pytest.raises(UserError, match=message):
        prepared(flag, "0.1")


def test_what_is_printed_reads_back_to_the_same_run():
    save_toy(Path("toy"))
    run = prepared("--stages.2.until.kl", "4.0", "--stages.3.seed", "9")
    printed = run.dump()
    assert yaml.safe_load(printed)["stages"][1]["until"] == {"kl": 4.0} and "defaults of PPOConfig" in printed
    again = prepared(text=printed)
    assert again.config == run.config
    for one, other in zip(run.trainer().stages, again.trainer().stages, strict=True):
        assert one.hand_over == other.hand_over and one.until == other.until
        assert options_of(one.args) == options_of(other.args)


def test_only_true_resumes():
    assert prepared("--resume_from_checkpoint", "true").resume
    with pytest.raises(UserError, match="resume_from_checkpoint is 'out/x'; give true"):
        prepared("--resume_from_checkpoint", "out/x")
