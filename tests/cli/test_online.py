"""`hf-align online-dpo` from recipes, on a tiny model."""

import json
import re
from pathlib import Path

import pytest
from peft import AutoPeftModelForCausalLM

from hf_align.cli.main import main
from tests.cli.few import few
from tests.cli.test_train import RECIPES

FUNCTIONS = """
def letters(prompts, responses):
    return [float(len(response)) for response in responses]


def longer(prompt, first, second):
    return "tie" if len(first) == len(second) else "first" if len(first) > len(second) else "second"
"""
SMALL = (
    "--per_device_train_batch_size 4 --num_samples 2 --per_device_eval_batch_size 4 --max_new_tokens 4 "
    "--total_episodes 16 --logging_steps 1 --use_cpu --bf16 false"
).split()


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FUNCTIONS)


def run(recipe: str, model: str, out: str, *flags: str) -> int:
    fixed = ["--config", str(RECIPES / f"{recipe}.yaml"), "--model", model, "--output_dir", out]
    return main(["online-dpo", *fixed, *few("online-dpo", Path()), *SMALL, *flags])


def test_a_reward_trains_beside_a_judge_that_only_evaluates(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = ["--reward", "mine.py:letters", "--eval_steps", "2", "--save_steps", "2"]
    assert run("online-dpo", tiny_model_dir, "out", *reward, "--eval_judge", "mine.py:letters") == 2
    assert "eval_judge is (part of) the reward itself: " in capsys.readouterr().err
    assert run("online-dpo", tiny_model_dir, "out", *reward, "--judge", "vader") == 2
    assert "reward or judge says which responses are better, and both are given" in capsys.readouterr().err
    assert run("online-dpo", tiny_model_dir, "out", *reward, "--dry-run") == 0
    assert "phase: last tokens of the responses" in capsys.readouterr().out
    assert run("online-dpo", tiny_model_dir, "out", *reward) == 0
    state = json.loads(Path("out/trainer_state.json").read_text())
    assert state["max_steps"] == 4 and any("objective/scores" in entry for entry in state["log_history"])
    metrics = json.loads(Path("out/eval_results.json").read_text())
    assert metrics["eval_reward"] > 0 and -1 <= metrics["eval_judge"] <= 1
    AutoPeftModelForCausalLM.from_pretrained("out")
    card = Path("out/README.md").read_text()
    assert "trained with online DPO on pairs of its own responses, which\na reward told apart" in card
    assert "guo2024direct" in card and "Over-optimisation" in card and "online-dpo" in card


def test_a_judge_of_pairs_is_named_as_elsewhere(tiny_model_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Path("recipe.yaml")
    text = (RECIPES / "smoke-online-dpo.yaml").read_text()
    recipe.write_text(text.replace("judge: vader", "judge: {funktion: 'mine.py:longer'}"))
    assert main(["online-dpo", "--config", "recipe.yaml", "--model", tiny_model_dir, *few("online-dpo", Path())]) == 2
    assert "recipe.yaml, line 5: judge: funktion is not a valid key; did you mean function?" in capsys.readouterr().err
    recipe.write_text(text)
    held_out = ["--config", "recipe.yaml", "--model", tiny_model_dir, *few("online-dpo", Path())]
    assert main(["online-dpo", *held_out, "--eval_judge", "vader"]) == 2
    said = "eval_judge is (part of) the judge itself: vader; give an independent one, such as a reward model"
    assert said in capsys.readouterr().err
    assert main(["online-dpo", *held_out, "--judge", "./missing"]) == 2
    assert "--judge: './missing' doesn't exist" in (error := capsys.readouterr().err) and "a judge is vader" in error
    recipe.write_text(text.replace("judge: vader", "judge: {function: 'mine.py:longer'}"))
    flags = ["--model", tiny_model_dir, "--output_dir", "out", *few("online-dpo", Path()), *SMALL, "--loss_type", "ipo"]
    assert main(["online-dpo", "--config", "recipe.yaml", *flags]) == 0
    metrics = json.loads(Path("out/eval_results.json").read_text())
    assert 0 <= metrics["eval_win_rate"] <= 1
    card = Path("out/README.md").read_text()
    assert re.search(r"\| Judge \| mine\S*longer \|", card) and "online IPO" in card and "calandriello2024human" in card
