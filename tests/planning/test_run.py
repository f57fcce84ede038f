import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from hf_align import RewardEnsemble
from hf_align.cli.main import main
from hf_align.models.reward import RewardModel
from hf_align.planning.device import Device
from hf_align.planning.settings import Settings, named_algorithm
from tests.cli.few import few
from tests.cli.test_train import RECIPES
from tests.tiny import save_tiny


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def check(command: str, model: str, *flags: str) -> int:
    recipe = str(RECIPES / f"{command}.yaml")
    fixed = ["--config", recipe, "--model", model, "--output_dir", "out", *few(command, Path(), train=16)]
    return main([command, *fixed, "--dry-run", *flags])


@pytest.mark.parametrize("command", ["sft", "reward", "dpo", pytest.param("ipo", marks=pytest.mark.slow), "ppo"])
def test_nothing_is_loaded_or_written(
    command: str, tiny_model_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a dry run loads no weights")

    flags = ["--per_device_train_batch_size", "2"]  # attention is traced row by row
    if command == "ppo":
        RewardModel.from_backbone(tiny_model_dir, lora=True).save_pretrained("reward")
        flags = ["--reward", "./reward"]
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", loaded)
    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_pretrained", loaded)
    assert check(command, tiny_model_dir, *flags) == 0
    shown = capsys.readouterr().out
    kind = "LlamaForSequenceClassification" if command == "reward" else "LlamaForCausalLM"
    assert f"{kind}, " in shown
    lora = {"lora": yaml.safe_load((RECIPES / f"{command}.yaml").read_text())["lora"]}
    planned = Settings(tiny_model_dir, named_algorithm(command), lora, Device.of("24GB"))
    assert f" weights, {planned.trained} trained" in shown, "a value head, too"
    assert "16 rows, " in shown
    assert "allocator" in next(line for line in shown.splitlines() if line.startswith("acceleration "))
    assert "memory, about" in shown and "memory: trained weights" in shown
    assert "Nothing was trained" in shown
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_shared_base_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    base = save_tiny(Path("base"), vocab_size=50_000)  # far larger than its adapter
    RewardModel.from_backbone(base, lora=True).save_pretrained("adapter")
    RewardModel.from_backbone(base).save_pretrained("whole")
    actual = []
    for reward in ("./adapter", "./whole"):
        assert check("ppo", base, "--reward", reward) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if "reward model" in line)
        actual.append(float(line.split()[-2]))
    assert 3 * actual[0] < actual[1]
    members = [RewardModel.from_backbone(base, lora=True) for _ in range(2)]
    RewardEnsemble(members).save_pretrained("ensemble")
    other = save_tiny(Path("other"), vocab_size=300, seed=5)
    for model in (base, other):
        assert check("ppo", model, "--reward", "./ensemble") == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if "reward model" in line)
        actual.append(float(line.split()[-2]))
    assert actual[2] == pytest.approx(2 * actual[0], abs=2), "two adapters on the policy's base"
    assert actual[3] == pytest.approx(actual[1] + actual[2], rel=0.1), "two adapters on one base of their own"
    assert check("ppo", base, "--reward", "./adapter", "--judge", "./whole") == 0
    assert f"memory: judge{'':{48 - 13}}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train_dataset", "bad.jsonl"], "1 row has identical chosen and rejected (row 1)"),
        (["--model", "no/such-model"], "no/such-model"),
        (["--ref_model", "no/such-model"], "no/such-model"),
        (["--lora.target_modules", "nothing"], "lora: Target modules"),
        (["--lora", "false", "--quantization", "4bit"], "only through an adapter"),
        (["--weight_decay", "-1"], "weight_decay is -1.0; give a number from 0"),
        (["--eval_dataset", "null", "--eval_strategy", "epoch"], "there is no eval_dataset"),
        (["--output_dir", "bad.jsonl/x"], "output_dir: can't write to bad.jsonl/x"),
    ],
)
def test_what_would_fail_later_fails_now(
    flags: list[str],
    message: str,
    tiny_model_dir: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    Path("bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert check("dpo", tiny_model_dir, *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_models_of_the_wrong_kind(tiny_model_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    RewardModel.from_backbone(tiny_model_dir).save_pretrained("whole")
    assert check("ppo", tiny_model_dir, "--reward", tiny_model_dir) == 2
    assert f"{tiny_model_dir} has no reward head and would score at random" in capsys.readouterr().err
    assert check("dpo", "whole") == 2
    assert "model: whole is a reward model" in capsys.readouterr().err
    assert check("ppo", tiny_model_dir, "--reward", "./whole", "--ref_model", "whole") == 2
    assert "ref_model: whole is a reward model" in capsys.readouterr().err


@pytest.mark.slow
def test_too_little_memory_and_too_little_disk(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    large = json.loads((Path(tiny_model_dir) / "config.json").read_text())
    large |= {"hidden_size": 2**18, "intermediate_size": 2**20, "head_dim": 2**16}  # 10^12 weights a layer
    shutil.copytree(tiny_model_dir, "large", ignore=shutil.ignore_patterns("*.safetensors"))
    Path("large/config.json").write_text(json.dumps(large))
    assert check("dpo", "large") == 2
    assert re.search(r"about \d+\.\d GiB of memory, and \S+ \wiB are free on", capsys.readouterr().err)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    assert check("dpo", tiny_model_dir) == 2
    assert "output_dir: this writes about" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "flags", "steps"),
    [
        ("dpo", ["--max_steps", "7"], 7),
        ("dpo", ["--max_steps", "-1", "--num_train_epochs", "3"], 3),
        ("ppo", ["--total_episodes", "64"], 8),
        ("ppo", ["--total_episodes", "null", "--num_train_epochs", "3"], 24),
    ],
)
@pytest.mark.slow
def test_steps_are_counted(
    command: str, flags: list[str], steps: int, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.py").write_text("def f(prompts, responses):\n    return [0.0] * len(responses)\n")
    reward = ["--reward", "r.py:f"] if command == "ppo" else []
    assert check(command, tiny_model_dir, *reward, *flags) == 0
    assert f"{steps}, of " in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("steps"))


@pytest.mark.slow
def test_a_moving_reference_is_a_second_adapter_or_in_float32(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def reference(*flags: str) -> str | None:
        assert check("dpo", tiny_model_dir, *flags) == 0
        lines = capsys.readouterr().out.splitlines()
        return next((line for line in lines if line.startswith("memory: reference")), None)

    assert reference() is None, "the base without the adapter"
    assert reference("--sync_ref_model", "true") is not None


@pytest.mark.slow
def test_names_are_apart_from_figures_and_rounded_episodes_are_said(
    tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.py").write_text("def f(prompts, responses):\n    return [0.0] * len(responses)\n")
    for episodes, said in ((33, " (total_episodes is 33, and rollouts are whole)"), (32, "")):
        assert check("ppo", tiny_model_dir, "--reward", "r.py:f", "--total_episodes", str(episodes)) == 0
        lines = capsys.readouterr().out.splitlines()
        steps = next(line for line in lines if line.startswith("steps"))
        sampled = int(re.search(r"; (\d+) responses are sampled", steps)[1])  # type: ignore[index]
        assert steps.endswith(f"; {sampled} responses are sampled{said}") and 0 <= sampled - episodes < 32
    assert any(re.match("phase: last tokens of the responses  +[0-9]", line) for line in lines)
