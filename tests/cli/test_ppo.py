import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_align import RewardEnsemble
from hf_align.cli.main import main
from hf_align.models.reward import RewardModel
from tests.cli.few import few
from tests.cli.test_train import RECIPES, interrupted_at

REWARD = """
def letters(prompts, responses, domain):
    assert len(prompts) == len(responses) == len(domain)
    return [float(len(response)) for response in responses]
"""
SMALL = (
    "--per_device_train_batch_size 2 --num_samples 2 --per_device_eval_batch_size 4 --max_new_tokens 4 "
    "--logging_steps 1 --save_steps 1 --use_cpu --bf16 false"
).split()


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(REWARD)


def run(model: str, out: str, *flags: str, reward: str = "mine.py:letters") -> int:
    fixed = ["--config", str(RECIPES / "ppo.yaml"), "--model", model, "--reward", reward, "--output_dir", out]
    return main(["ppo", *fixed, *few("ppo", Path()), *SMALL, *flags])


def test_the_recipe_trains_evaluates_and_saves(tiny_model_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_model_dir, "out", "--judge", "mine.py:letters") == 2
    assert "--judge is (part of) the reward itself: " in capsys.readouterr().err
    assert run(tiny_model_dir, "out", "--total_episodes", "8", "--judge", "vader") == 0
    assert "held out" in capsys.readouterr().out
    state = json.loads(Path("out/trainer_state.json").read_text())
    logged = [entry for entry in state["log_history"] if "objective/scores" in entry]
    assert (len(logged), state["max_steps"]) == (2, 8), "two rollouts of four responses, four steps on each"
    assert logged[-1]["episode"] == 8
    metrics = json.loads(Path("out/eval_results.json").read_text())
    assert metrics["eval_reward"] > 0 and -1 <= metrics["eval_judge"] <= 1
    assert load_file("out/value_head.safetensors")
    AutoPeftModelForCausalLM.from_pretrained("out")
    assert run(tiny_model_dir, "out") == 2
    assert "already holds a training run" in capsys.readouterr().err


def test_a_reward_model_on_the_same_base_and_a_weighted_list(tiny_model_dir: str) -> None:
    RewardModel.from_backbone(tiny_model_dir, lora=True).save_pretrained("reward")
    rewards = "[{reward: reward, weight: 2}, {reward: 'mine.py:letters', weight: 0.1}]"
    assert run(tiny_model_dir, "out", "--total_episodes", "1", reward=rewards) == 0
    logged = json.loads(Path("out/trainer_state.json").read_text())["log_history"][0]
    total = 2 * logged["rewards/reward"] + 0.1 * logged["rewards/letters"]
    assert logged["objective/scores"] == pytest.approx(total, rel=1e-5)


def test_full_fine_tuning_loads_plainly(tiny_model_dir: str) -> None:
    assert run(tiny_model_dir, "out", "--total_episodes", "1", "--lora", "false", "--learning_rate", "1e-2") == 0
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (tiny_model_dir, "out"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert Path("out/value_head.safetensors").exists()


def test_after_ctrl_c_the_advice_finishes_the_run_with_an_ensemble_as_reward(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--total_episodes", "8", "--learning_rate", "1e-2"]
    members = [RewardModel.from_backbone(tiny_model_dir, lora=True) for _ in range(2)]
    ensemble = RewardEnsemble(members, "uncertainty_weighted")
    ensemble.normalize([{"prompt": f"{n}", "chosen": f" a{n}", "rejected": f" {n}b"} for n in range(4)], "four pairs")
    ensemble.save_pretrained("pair")
    assert run(tiny_model_dir, "unbroken", *flags, reward="pair") == 0
    with interrupted_at(5, monkeypatch):
        assert run(tiny_model_dir, "broken", *flags, reward="pair") == 130
    assert "Resume with: hf-align ppo --config" in capsys.readouterr().err
    assert run(tiny_model_dir, "broken", *flags, "--resume_from_checkpoint", "true", reward="pair") == 0
    logged = json.loads(Path("unbroken/trainer_state.json").read_text())["log_history"]
    again = json.loads(Path("broken/trainer_state.json").read_text())["log_history"]
    for name in ("ensemble/std", "ensemble/penalty", "objective/scores"):
        values = [[entry[name] for entry in entries if name in entry] for entries in (logged, again)]
        assert values[0] == values[1] and len(values[0]) == 2 and all(values[0]), name
    card = Path("unbroken/README.md").read_text()
    assert "| Reward | pair (an ensemble of 2 reward models, by uncertainty weighted) |" in card
    for name in ("adapter_model.safetensors", "value_head.safetensors"):
        unbroken, broken = (load_file(Path(folder) / name) for folder in ("unbroken", "broken"))
        assert all(torch.equal(unbroken[key], broken[key]) for key in unbroken)


@pytest.mark.parametrize(
    ("flags", "reward", "message"),
    [
        ([], "mine.py:leters", "mine.py has no function leters"),
        ([], "./nowhere", "there is no folder ./nowhere"),
        ([], "no/such-model", "no/such-model"),
        (["--rollout_batch_size", "3"], "mine.py:letters", "would fit"),
        (["--kl_in", "loss", "--kl_estimator", "k1"], "mine.py:letters", "kl_estimator='k1'"),
        (["--train_dataset", "bad.jsonl"], "mine.py:letters", "has no prompt"),
        (["--train_dataset", "plain.jsonl"], "mine.py:letters", "asks for 'domain'"),
        (["--lora.target_modules", "nothing"], "mine.py:letters", "lora: Target modules"),
    ],
)
def test_mistakes_exit_with_2(
    flags: list[str],
    reward: str,
    message: str,
    tiny_model_dir: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    Path("bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": null}\n')
    Path("plain.jsonl").write_text('{"prompt": "a"}\n' * 4)
    assert run(tiny_model_dir, "out", "--total_episodes", "1", *flags, reward=reward) == 2
    error = capsys.readouterr().err
    assert error.startswith("hf-align: error: ")
    assert error.count("\n") == 1
    assert message in error
