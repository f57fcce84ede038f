import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_align.cli import main as cli
from hf_align.cli.main import Interrupted, main
from hf_align.errors import UserError

COMMANDS = ("quickstart", "reward", "dpo", "ipo")


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr, which has to be an error line."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("hf-align: error: ")
    return captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    assert f"hf-align {command} --" in shown


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {command}" in shown for command in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from hf_align.cli.main import main; main(['dpo', '--help']); "
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["qickstart"], "there is no command qickstart; did you mean quickstart?"),
        (["zzz"], "there are quickstart, reward, dpo, ipo"),
        (["quickstart", "--profile", "tiny"], "--profile"),
        (["quickstart", "--seed", "x"], "--seed"),
        (["quickstart", "--resume", "--overwrite"], "not allowed with"),
        (["quickstart", "--prof", "smoke"], "quickstart does not know --prof"),
        (["dpo", "--config", "no/such.yaml"], "there is no file no/such.yaml"),
        (["dpo", "stray"], "'stray' is not a flag"),
        (["reward", "--model", "m"], "train_dataset is missing"),
        (["ipo", "--model", "m", "--train_dataset", "d.jsonl", "--betta", "1"], "did you mean beta?"),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--beta", "x"], "--beta expects a number"),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--beta", "-1"], "beta is -1"),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--eval_strategy", "sometimes"], "sometimes"),
        (["dpo", "--model", "m", "--train_dataset", "none.jsonl"], "train_dataset: there is no file none.jsonl"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def replace_command(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(options: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr(cli, "_lazy", lambda module, name: run)


def test_a_message_of_several_lines_becomes_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_command(monkeypatch, UserError("first\n  second"))
    assert main(["quickstart"]) == 2
    assert error_line(capsys) == "hf-align: error: first second\n"


def test_ctrl_c_exits_with_130_and_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_command(monkeypatch, Interrupted("Resume with: hf-align quickstart --resume"))
    assert main(["quickstart"]) == 130
    assert "Resume with: hf-align quickstart --resume" in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_command(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["quickstart"])


def test_fields_reach_the_command_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli, "_lazy", lambda module, name: seen.append)
    assert main(["dpo", "--beta", "-0.5", "--config", "r.yaml", "--lora.r=8", "--bf16"]) == 0
    assert seen[0].config == "r.yaml"
    assert seen[0].fields == ["--beta", "-0.5", "--lora.r=8", "--bf16"]
