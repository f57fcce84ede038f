"""`hf-align ensemble` from a recipe to a folder, interrupted and repeated."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import pstdev

import pytest

from hf_align import RewardEnsemble
from hf_align.cli.main import main
from tests.cli.few import few
from tests.cli.test_train import RECIPES, SMALL, with_callback
from tests.trainers.test_callbacks import PressCtrlC

TINY = ["--lora.r", "2", "--vary.lora.r", "[2, 4]", "--n", "2", "--max_steps", "2", "--logging_steps", "1"]


def run(model: str, out: Path, *flags: str) -> int:
    fixed = ["--config", str(RECIPES / "ensemble.yaml"), "--model", model, "--output_dir", str(out)]
    data = few("ensemble", out.parent)
    reference = ["--reference_dataset", data[data.index("--train_dataset") + 1]]
    return main(["ensemble", *fixed, *data, *reference, *SMALL, *TINY, *flags])


def test_a_recipe_becomes_an_ensemble_that_the_same_command_goes_on_with(
    tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with with_callback(PressCtrlC(1), monkeypatch):
        assert run(tiny_model_dir, out) == 130
    error = capsys.readouterr().err
    assert "Finished members are kept; go on with the same command: hf-align ensemble --config" in error
    assert (out / "training" / "member-0" / "checkpoint-2").exists() and not (out / "member-0").exists()
    assert run(tiny_model_dir, out, "--method", "min") == 0
    said = capsys.readouterr().out
    assert "member-0: seed 0, 6 rows (" in said and "goes on from checkpoint-2" in said and "lora.r 4" in said
    assert "ensemble, min" in said and f"saved in {out}" in said
    saved = json.loads((out / "ensemble.json").read_text())
    assert saved["method"] == "min" and saved["members"] == ["member-0", "member-1"]
    normalized = [
        json.loads((out / name / "reward_config.json").read_text())["normalization"] for name in saved["members"]
    ]
    assert [each["rows"] for each in normalized] == [8, 8], "the reference's rows"
    results = json.loads((out / "ensemble_results.json").read_text())
    accuracies = [each["accuracy"] for each in results["members"]]
    assert results["member_accuracy_std"] == pytest.approx(pstdev(accuracies)) and results["std"] > 0
    assert f"{results['mean_member_accuracy']:.3f} ± {results['member_accuracy_std']:.3f}" in said
    assert len(RewardEnsemble.from_pretrained(out).score(["A film."], ["A joy."])) == 1

    assert run(tiny_model_dir, out, "--learning_rate", "1e-3") == 2
    assert "was trained with learning_rate 0.0005, and now it is 0.001" in capsys.readouterr().err
    flags = ["--train_dataset", "embedded:ratings", *SMALL, "--model", tiny_model_dir, "--output_dir", str(out)]
    assert main(["reward", *flags]) == 2
    assert "already holds a training run" in capsys.readouterr().err


def test_a_dry_run_plans_all_members(tiny_model_dir: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_model_dir, tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "2, one after another, on about 6 rows each, drawn with replacement" in said
    assert "2 of each member, of 2 rows each" in said and "memory of all members, about" in said
    for flags, message in [
        (["--method", "stacking", "--eval_dataset", "null"], "--method 'stacking' is fitted on held-out rows"),
        (["--kl_coef", "0.1"], "--kl_coef is not a valid key; it belongs to ppo"),
        (["--vary.lora.rank", "[2]"], "vary: members can't differ in lora.rank; did you mean lora."),
        (["--enable_jit_checkpoint"], "--enable_jit_checkpoint must be left out: it would end a member as if"),
        (["--resume_from_checkpoint", "out"], "must be left out: an ensemble goes on by itself"),
        (["--bootstrap", "2"], "--bootstrap is 2.0; it must be above 0 and at most 1"),
    ]:
        assert run(tiny_model_dir, tmp_path / "out", "--dry-run", *flags) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()
