"""Tokens in the environment and in a recipe: no file, log, record, card or error of a run has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_align.cli.main import main

PLANTED = {
    "HF_TOKEN": "hf_PlantedTokenOfTheHub0123456789abcdef",
    "HUGGING_FACE_HUB_TOKEN": "hf_PlantedOldTokenOfTheHub0123456789ab",
    "WANDB_API_KEY": "planted0wandb0key0123456789abcdef01234567",
    "OPENAI_API_KEY": "sk-planted-openai-key-0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "PlantedAwsSecret/0123456789+abcdefghijkl",
    "MY_ENDPOINT_TOKEN": "planted-token-of-an-endpoint-0123456789",
}
OF_RECIPE = "hf_PlantedTokenInTheRecipe0123456789abcd"


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, token in PLANTED.items():
        monkeypatch.setenv(name, token)
    monkeypatch.chdir(tmp_path)


def train(model: str, **values: object) -> int:
    """Two steps of DPO from a recipe, with a checkpoint, a card and an evaluation."""
    rows = [{"prompt": f"{each} ", "chosen": "good", "rejected": "bad"} for each in range(4)]
    for name, each in (("rows", rows[:3]), ("held_out", rows[3:])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in each))
    recipe = {
        "model": model,
        "train_dataset": "rows.jsonl",
        "eval_dataset": "held_out.jsonl",
        "output_dir": "out",
        "max_steps": 2,
        "save_steps": 1,
        "logging_steps": 1,
        "eval_strategy": "steps",
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "hub_token": OF_RECIPE,
        **values,
    }
    Path("recipe.yaml").write_text(json.dumps(recipe))
    return main(["dpo", "--config", "recipe.yaml"])


def found_in(text: bytes) -> list[str]:
    """The planted tokens that stand in a text."""
    return [token for token in (*PLANTED.values(), OF_RECIPE) if token.encode() in text]


def test_a_run_writes_no_token(tiny_model_dir: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert train(tiny_model_dir) == 0
    said = capfd.readouterr()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "recipe.yaml"]
    assert {"run.sqlite", "README.md", "trainer_state.json"} <= {path.name for path in written}
    assert {path.name: found for path in written if (found := found_in(path.read_bytes()))} == {}
    assert found_in((said.out + said.err).encode()) == []


def test_an_error_says_no_token(tiny_model_dir: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert train(tiny_model_dir, lerning_rate=1e-3) == 2
    assert train("./no-such-model") == 2
    said = capfd.readouterr()
    assert "learning_rate" in said.err and "no-such-model" in said.err
    assert found_in((said.out + said.err).encode()) == []
