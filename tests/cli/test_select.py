from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_align.cli.main import main


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of pairs."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Film {n} was", "chosen": f" a joy {n}.", "rejected": " too long."} for n in range(30)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    return "pairs.jsonl"


@pytest.mark.slow
def test_a_choice_is_printed_and_written(pairs: str, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]):
    flags = ["--data", pairs, "--model", tiny_model_dir, "--gpu", "24GB", "--need", "simple", "fast"]
    assert main(["select", *flags, "--json", "choice.json"]) == 0
    shown = capsys.readouterr().out
    figures = json.loads(Path("choice.json").read_text())
    assert f"algorithm     {figures['algorithm']}" in shown
    for word in ("because", "option", "runner-up", "score of", "resources", "against it"):
        assert word in shown
    assert main(["select", *flags, "--json", "-", "--recipe", "first.yaml"]) == 0
    assert json.loads(capsys.readouterr().out) == figures
    trains = ["--config", "first.yaml", "--output_dir", "out", "--dry_run"]
    assert main([figures["algorithm"], *trains]) == 0
    assert f"train_dataset: {pairs}" in Path("first.yaml").read_text()


@pytest.mark.slow
def test_rules_from_a_function(pairs: str, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]):
    Path("mine.py").write_text("def scores(features):\n    return {'grpo': features.pairs / 30, 'dpo': 0.5}\n")
    flags = ["--data", pairs, "--model", tiny_model_dir, "--gpu", "24GB", "--rules", "mine.py:scores"]
    assert main(["select", *flags]) == 0
    shown = capsys.readouterr().out
    assert "algorithm     grpo" in shown
    assert "runner-up     dpo" in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpu", "24 apples"], "not an amount of memory"),
        (["--need", "fats"], "did you mean fast"),
        (
            ["--need", "no_training", "no_reward_model", "--data", "none.jsonl"],
            "no_reward_model and no_training together",
        ),
        (["--recipe", "."], "recipe: . can't be written: it is a folder"),
        (["--rules", "none.yaml"], "rules: there is no file none.yaml"),
        (
            ["--data", "prompts.jsonl"],
            "Nothing is possible here: sft: it needs demonstrations; dpo, cdpo, ipo: it needs pairs;",
        ),
        (["--reward", "./none"], "--reward: there is no folder ./none"),
        (["--reward", "none.py:score"], "none.py"),
        (["--reward", "MODEL"], "has no reward head"),
        (["--data", "none.jsonl"], "none.jsonl"),
        (["--model", "./none"], "none"),
        (["--hors", "3"], "did you mean --hours"),
    ],
)
def test_bad_input_is_one_line(
    pairs: str, tiny_model_dir: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    capsys.readouterr()  # the model's making
    flags = [flag.replace("MODEL", tiny_model_dir) for flag in flags]
    assert main(["select", "--data", pairs, "--model", tiny_model_dir, *flags]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line
