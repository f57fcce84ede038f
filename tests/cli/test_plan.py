"""`hf-align plan`: its lines, JSON and recipe, and mistakes."""

import json
from pathlib import Path

import pytest

from hf_align.cli.main import main
from tests.planning.test_planner import SHALLOW


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SHALLOW))
    return str(path)


def test_lines_json_and_recipe_say_the_same(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["plan", "--model", config, "--algorithm", "dpo", "--gpu", "24GB", "--lora.r", "4", "--max_length", "64"]
    flags += ["--per_device_train_batch_size", "2"]
    assert main([*flags, "--recipe", str(tmp_path / "fits.yaml"), "--json", str(tmp_path / "plan.json")]) == 0
    shown = capsys.readouterr().out
    assert "memory: weights" in shown and "\nfits" in shown
    figures = json.loads((tmp_path / "plan.json").read_text())
    rows, tokens = figures["micro_batch"]
    assert f"{figures['layout']}, largest micro-batch {rows} x {tokens} tokens" in shown
    assert f"{figures['device']} has 24.0 GiB" in shown and figures["changed_device_bytes"] == figures["device_bytes"]
    assert figures["weights"] > figures["trained_weights"] > 0
    assert figures["fits"] and sum(figures["parts"].values()) == pytest.approx(figures["peak_bytes"], abs=20)
    recipe = (tmp_path / "fits.yaml").read_text()
    command = f"hf-align dpo --config {tmp_path / 'fits.yaml'}"
    assert recipe.startswith(f"# {command}\n")
    assert f"\ntrain: {command}, with model, train_dataset still to be given\n" in shown
    assert f"model: {config}" in recipe and "r: 4" in recipe and "train_dataset: ... is still to be given" in recipe
    again = ["plan", "--config", str(tmp_path / "fits.yaml"), "--algorithm", "dpo", "--gpu", "24GB", "--json", "-"]
    assert main([*again, "--recipe", str(tmp_path / "again.yaml")]) == 0
    again_figures = json.loads(capsys.readouterr().out)
    assert {**again_figures, "disk_free_bytes": figures["disk_free_bytes"]} == figures
    assert (tmp_path / "again.yaml").read_text() == recipe.replace("fits.yaml", "again.yaml")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--algorithm", "dpo"], "model is missing"),
        (["--model", "none.json", "--algorithm", "dpo"], "none.json can't be read"),
        (["--model", "{config}", "--algorithm", "pppo"], "did you mean ppo?"),
        (["--model", "{config}", "--algorithm", "dpo", "--gpu", "big"], "'big' is not an amount of memory"),
        (["--model", "{config}", "--algorithm", "dpo", "--max_lenght", "5"], "did you mean max_length?"),
    ],
)
def test_mistakes_are_one_line(flags: list[str], message: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *(flag.format(config=config) for flag in flags)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
