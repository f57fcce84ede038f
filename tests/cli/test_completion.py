import shutil
import subprocess
from pathlib import Path

import pytest

from hf_align.cli.commands.completion import SCRIPTS, Words, collect_words
from hf_align.cli.main import main
from hf_align.cli.table import COMMANDS


@pytest.fixture(scope="module")
def words() -> dict[str, Words]:
    return collect_words()


@pytest.fixture(scope="module")
def bash(words: dict[str, Words], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "hf-align.bash"
    path.write_text(SCRIPTS["bash"](words))
    return path


def completed(script: Path, line: str, folder: Path) -> list[str]:
    """Bash's completions of the line's last word."""
    parts = line.split(" ")
    quoted = " ".join(f"'{part}'" for part in parts)
    program = f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(parts) - 1}; _hf_align; "
    program += "printf '%s\\n' \"${COMPREPLY[@]}\""
    shown = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    assert shown.stderr == ""
    return shown.stdout.split()


def test_every_command_and_field_is_known(words: dict[str, Words]) -> None:
    assert set(words[""].commands) == {command.name for command in COMMANDS}
    assert {"--config", "--dry-run", "--model", "--ref_model", "--beta", "--learning_rate"} <= set(words["dpo"].flags)
    assert "--reward" in words["ppo"].flags
    assert "--ref_model" not in words["reward"].flags
    assert words["ppo"].flags["--kl_controller"] == ["proportional", "threshold", "fixed"]
    assert words["evaluate policy"].flags["--quantization"] == ["8bit", "4bit"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hf-align qu", {"quickstart"}),
        ("hf-align evaluate ", {"judge", "policy", "reward", "--help"}),
        ("hf-align dpo --be", {"--beta"}),
        ("hf-align ppo --kl_in ", {"reward", "loss", "terminal"}),
        ("hf-align ppo --kl_controller th", {"threshold"}),
        ("hf-align dpo --config ", {"recipe.yaml"}),
        (
            "hf-align dpo --config recipe.yaml --ref_model",
            {"--ref_model", "--ref_model_mixup_alpha", "--ref_model_sync_steps"},
        ),
        ("hf-align evaluate policy --jud", {"--judge"}),
        ("hf-align evaluate reward --jud", {"--judge"}),
        ("hf-align evaluate reward --max", set()),
        ("hf-align completion z", {"zsh"}),
    ],
)
def test_bash_offers_what_may_follow(bash: Path, line: str, offered: set[str], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    assert set(completed(bash, line, tmp_path)) - ({"recipe.yaml"} - offered) == offered


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_scripts_are_printed_and_parse(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("hf-align", "quickstart", "kl_controller", "learning_rate"))
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
