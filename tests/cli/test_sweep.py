"""`hf-align sweep`: several weights, one failure, and the same command again."""

import json
from pathlib import Path

import numpy as np
import pytest

from hf_align.cli.main import main
from hf_align.files import write_text
from tests.cli.few import few
from tests.cli.test_ppo import SMALL
from tests.cli.test_train import RECIPES

REWARDS = """
def long(prompts, responses):
    return [float(len(response)) for response in responses]

def vowels(prompts, responses):
    return [float(sum(letter in "aeiou" for letter in response)) for response in responses]
"""
OBJECTIVES = "[{reward: 'mine.py:long', weight: 0.1}, 'mine.py:vowels']"


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(REWARDS)


def sweep(model: str, *flags: str, reward: str = OBJECTIVES) -> int:
    fixed = ["--config", str(RECIPES / "ppo.yaml"), "--model", model, "--reward", reward, "--output_dir", "out"]
    few_steps = ["--total_episodes", "1", "--num_ppo_epochs", "1", "--num_mini_batches", "1"]
    return main(["sweep", "--steps", "2", *fixed, *few("ppo", Path()), *SMALL, *few_steps, *flags])


def test_each_weighting_is_trained_once_and_a_failure_is_tried_again(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text("out/0.5-0.5", "a file in a run's place")
    assert sweep(tiny_model_dir) == 0
    said = capsys.readouterr().out
    assert "weights 0.5-0.5 failed" in said and "2 points are on the front" in said
    trained = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/objectives.json")}
    assert sorted(path.parent.name for path in trained) == ["0-1", "1-0"]
    state = json.loads(Path("out/1-0/trainer_state.json").read_text())["log_history"][0]
    assert state["objective/scores"] == pytest.approx(0.1 * state["rewards/long"]), "the recipe's weight is the unit"

    Path("out/0.5-0.5").unlink()
    assert sweep(tiny_model_dir) == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained, "finished runs aren't repeated"
    figures = json.loads(Path("out/front.json").read_text())["figures"]
    assert figures["objectives"] == ["long", "vowels"]
    assert [point["weights"] for point in figures["points"]] == [[0, 1], [0.5, 0.5], [1, 0]]
    metrics = json.loads(Path("out/0.5-0.5/eval_results.json").read_text())
    objectives = json.loads(Path("out/0.5-0.5/objectives.json").read_text())["scores"]
    for number, name in enumerate(("long", "vowels")):
        assert figures["points"][1]["values"][number] == pytest.approx(np.mean(objectives[name]))
        assert metrics[f"eval_rewards/{name}"] == pytest.approx(np.mean(objectives[name]))
    assert "<svg" in Path("out/front.html").read_text() and Path("out/front.png").exists()
    assert sweep(tiny_model_dir, "--learning_rate", "0.5") == 2, "what is finished has another rate"
    assert "out/0-1 was trained with learning_rate" in capsys.readouterr().err


def test_recipes_that_have_nothing_to_weigh_are_refused(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, reward, message in (
        ([], "mine.py:long", "a sweep needs a list of at least two rewards"),
        (["--eval_dataset", "null"], OBJECTIVES, "eval_dataset is missing"),
        (["--output_dir", "null"], OBJECTIVES, "output_dir is missing"),
        (["--steps", "0"], OBJECTIVES, "steps is 0"),
        ([], "['mine.py:long', 'mine.py:none']", "mine.py has no function none"),
        (["--lerning_rate", "1"], OBJECTIVES, "did you mean learning_rate"),
    ):
        assert sweep(tiny_model_dir, *flags, reward=reward) == 2
        assert message in capsys.readouterr().err
