import re
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from hf_align.cli.main import main
from hf_align.cli.parser import build_parser
from hf_align.cli.table import COMMANDS, Command
from tests.cli.stand_ins import SEEN

ROOT = Path(__file__).parents[2]
NAMES = [command.name for command in COMMANDS]
PATHS = [[command.name, *part] for command in COMMANDS for part in ([[p.name] for p in command.parts] or [[]])]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr, which must be an error line."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("hf-align: error: ")
    return captured.err


def examples(path: list[str], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The words of every example that the command's help shows."""
    assert main([*path, "--help"]) == 0
    shown = capsys.readouterr().out.partition("examples:\n")[2].replace("\\\n", "")
    # The command may be followed by a remark, two spaces away, or a redirection.
    lines = [re.split(r"\s{2,}| > ", line.strip())[0] for line in re.sub(r" +--", " --", shown).splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("hf-align ")]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_example_in_the_help_is_understood(path: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = examples(path, capsys)
    assert shown
    for words in shown:
        assert words[1 : 1 + len(path)] == path
        options, fields = build_parser().parse_known_args(words[1:])
        assert options.takes_fields or not fields
        if getattr(options, "config", None):
            assert (ROOT / options.config).exists()


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {name}" in shown for name in NAMES)


def test_each_command_names_a_function() -> None:
    parts = [part for command in COMMANDS for part in command.parts or (command,)]
    for part in parts:
        module, function = part.run.split(":")
        assert callable(getattr(import_module(module), function))


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
        (["zzz"], "commands are quickstart, sft, reward, ensemble, dpo, ipo, ppo, online-dpo, evaluate"),
        (["evaluate"], "COMMAND"),
        (["evaluate", "polcy"], "there is no command polcy; did you mean policy?"),
        (["evaluate", "policy", "--model", "m"], "--data"),
        (
            ["evaluate", "policy", "--model", "m", "--data", "d", "--beta", "1"],
            "evaluate policy does not know --beta; see",
        ),
        (["evaluate", "policy", "--max_new_tokens", "3"], "know --max_new_tokens; did you mean --max-new-tokens?"),
        (["evaluate", "policy", "--modle=m", "--data", "d"], "does not know --modle; did you mean --model?"),
        (["push", "out", "ORG/NAME", "stray"], "push does not know stray"),
        (["evaluate", "policy", "--model", "m", "--model", "m", "--data", "embedded:ratings"], "the same policy twice"),
        (
            ["evaluate", "policy", "--model", "m", "--data", "embedded:ratings", "--batch-size", "0"],
            "--batch-size is 0",
        ),
        (["evaluate", "reward", "--model", "m", "--data", "no.jsonl"], "--data: there is no file no.jsonl"),
        (["completion", "ksh"], "invalid choice: 'ksh'"),
        (["dpo", "--dry-run", "--print-config"], "not allowed with"),
        (["ppo", "--model", "m", "--train_dataset", "d.jsonl"], "reward is missing"),
        (["ppo", "--model", "m", "--train_dataset", "d.jsonl", "--reward", "r.py:f"], "there is no file r.py"),
        (["sft", "--model", "m", "--train_dataset", "d.jsonl", "--packng", "true"], "did you mean packing?"),
        (["quickstart", "--profile", "tiny"], "--profile"),
        (["quickstart", "--seed", "x"], "--seed"),
        (["quickstart", "--resume", "--overwrite"], "not allowed with"),
        (["quickstart", "--prof", "smoke"], "quickstart does not know --prof; did you mean --profile?"),
        (["dpo", "--config", "no/such.yaml"], "there is no file no/such.yaml"),
        (["dpo", "stray"], "'stray' is not a flag"),
        (["reward", "--model", "m"], "train_dataset is missing"),
        (["ipo", "--model", "m", "--train_dataset", "d.jsonl", "--betta", "1"], "did you mean beta?"),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--beta", "x"], "--beta expects a number"),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--beta", "-1"], "error: --beta is -1"),
        (["dpo", "--model", "no/such/folder", "--train_dataset", "embedded:ratings"], "--model: 'no/such/folder' does"),
        (
            ["dpo", "--model", "m", "--train_dataset", "embedded:rating"],
            "--train_dataset: there is no embedded:rating;",
        ),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--eval_strategy", "sometimes"], "sometimes"),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--report_to", "wandbb"], "there is no reporter wandbb"),
        (["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--report_to", "comet_ml"], "comet_ml is not installed"),
        (
            ["dpo", "--model", "m", "--train_dataset", "d.jsonl", "--per_device_train_batch_size", "0"],
            "--per_device_train_batch_size is 0; give a number from 1",
        ),
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


def run(function: str) -> int:
    return main(["stand-in"], [Command("stand-in", "", "", "", f"tests.cli.stand_ins:{function}")])


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("refuse") == 2
    assert error_line(capsys) == "hf-align: error: first second\n"


def test_ctrl_c_exits_with_130_and_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("be_interrupted") == 130
    assert "Resume with: hf-align quickstart --resume" in capsys.readouterr().err


def test_a_full_disk_exits_with_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fill_the_disk") == 1
    assert "a file can't be written: the disk is full. Free some space" in error_line(capsys)


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run("have_a_bug")


@pytest.mark.parametrize("name", ["improve", "constitution", "collect", "score"])
def test_several_processes_of_a_command_that_is_one_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = (command for command in COMMANDS if command.name == name)
    noting = replace(found, run="tests.cli.stand_ins:take_notes", add_arguments=lambda parser: None, takes_fields=False)
    for processes, status in (("1", 0), ("2", 2)):
        monkeypatch.setenv("WORLD_SIZE", processes)
        assert main([name], [noting]) == status
    assert f"{name} is one process, and 2 were started" in error_line(capsys) and len(SEEN) == 1
    SEEN.clear()


def test_fields_reach_the_command_in_order() -> None:
    (dpo,) = (command for command in COMMANDS if command.name == "dpo")
    noting = replace(dpo, run="tests.cli.stand_ins:take_notes")
    assert main(["dpo", "--beta", "-0.5", "--config", "r.yaml", "--lora.r=8", "--bf16"], [noting]) == 0
    options = SEEN.pop()
    assert options.config == "r.yaml"
    assert options.fields == ["--beta", "-0.5", "--lora.r=8", "--bf16"]
