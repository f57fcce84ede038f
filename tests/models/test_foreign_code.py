"""A model's own code never runs, whatever loads the model and whatever standard input contains."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_align import RewardModel, load_policy, load_reward_model
from hf_align.cli.main import main
from hf_align.errors import LoadError
from hf_align.models.sources import load_config, load_tokenizer

CODE = "from pathlib import Path\nPath({marker!r}).touch()\nclass Foreign: pass\n"
AUTO_MAP = {
    "config.json": dict.fromkeys(
        ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification"), "foreign.Foreign"
    ),
    "tokenizer_config.json": {"AutoTokenizer": [None, "foreign.Foreign"]},
}
LOADERS: dict[str, Callable[[str], Any]] = {
    "load_policy": load_policy,
    "load_reward_model": load_reward_model,
    "load_config": load_config,
    "load_tokenizer": load_tokenizer,
    "RewardModel.from_backbone": RewardModel.from_backbone,
}
COMMANDS = {
    "dpo": ["dpo", "--model", "{}", "--train_dataset", "rows.jsonl", "--output_dir", "out"],
    "dpo dry run": ["dpo", "--model", "{}", "--train_dataset", "rows.jsonl", "--output_dir", "out", "--dry-run"],
    "sft": ["sft", "--model", "{}", "--train_dataset", "rows.jsonl", "--output_dir", "out"],
    "reward": ["reward", "--model", "{}", "--train_dataset", "rows.jsonl", "--output_dir", "out"],
    "ppo": ["ppo", "--model", "{}", "--reward", "{}", "--train_dataset", "rows.jsonl", "--output_dir", "out"],
    "evaluate reward": ["evaluate", "reward", "--model", "{}", "--data", "rows.jsonl"],
    "evaluate policy": ["evaluate", "policy", "--model", "{}", "--data", "rows.jsonl"],
}


@pytest.fixture
def foreign(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A folder whose config and tokenizer name code beside them, and the file that the code would write."""
    folder, marker = tmp_path / "foreign", tmp_path / "it-ran"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "foreign.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    for name, auto_map in AUTO_MAP.items():
        values = json.loads((folder / name).read_text(encoding="utf-8")) | {"auto_map": auto_map}
        if name == "config.json":
            values |= {"model_type": "foreign"}
        else:
            values |= {"tokenizer_class": "Foreign"}
        (folder / name).write_text(json.dumps(values), encoding="utf-8")
    row = {"prompt": "a", "chosen": " b", "rejected": " c", "completion": " d", "response": " e", "rating": 1.0}
    Path(tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))
    return str(folder), marker


@pytest.mark.parametrize("loader", LOADERS)
def test_nothing_runs_when_a_class_or_function_loads(loader: str, foreign: tuple[str, Path]):
    folder, marker = foreign
    with pytest.raises(LoadError, match="it needs code that comes with it, which is never run"):
        LOADERS[loader](folder)
    assert not marker.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_runs_when_a_command_loads(command: str, foreign: tuple[str, Path], capsys: pytest.CaptureFixture[str]):
    folder, marker = foreign
    assert main([word.format(folder) for word in COMMANDS[command]]) == 2
    assert not marker.exists() and "which is never run" in capsys.readouterr().err
