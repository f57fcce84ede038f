"""`hf-align constitution`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hf_align.cli.main import main

FUNCTIONS = """
from pathlib import Path

def write(conversations):
    if Path("stop").exists():
        raise KeyboardInterrupt
    return [f"{place} words on: {messages[-1]['content']}" for place, messages in enumerate(conversations)]

def prefer(prompt, first, second, principle):
    return 0.9 if len(first) < len(second) else 0.1 if len(second) < len(first) else 0.5 + (first < second) / 4 - 0.125

def undecided(prompt, first, second):
    return "tie"

def silent(prompt, first, second):
    return None

def score(prompts, responses):
    return [float(sum(map(ord, response))) for response in responses]

def domain(prompt):
    return "all"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(FUNCTIONS)
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n} things."}) + "\n" for n in range(8)))
    Path("recipe.yaml").write_text(
        "output_dir: out\nprompts: prompts.jsonl\nmodel: mine.py:write\njudge: {function: mine.py:prefer}\n"
        "revisions: 2\nclassify: mine.py:domain\n"
    )
    return tmp_path


def run(*arguments: str) -> int:
    return main(["constitution", "--config", "recipe.yaml", *arguments])


def test_a_recipe_becomes_data_and_the_same_command_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "figures.json") == 0
    out = capsys.readouterr().out
    figures = json.loads(Path("figures.json").read_text())
    rows, prompts = figures["rows"], figures["prompts"]
    assert prompts["sft"] + prompts["preferences"] == 8 and prompts["sft"] == rows["sft"]
    assert f"rows: {rows['sft']} sft, {rows['preferences']} preferences" in out and "data: out" in out
    assert (figures["model"], figures["judge"]) == ("mine.py:write", "mine.py:prefer")
    before = {path.name: path.read_bytes() for path in Path("out").iterdir() if path.is_file()}
    assert {*before} == {
        *("sft.jsonl", "preferences.jsonl", "steps.jsonl", "statistics.json", "constitution.yaml", "README.md")
    }
    assert run("--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert {path.name: path.read_bytes() for path in Path("out").iterdir() if path.is_file()} == before
    assert run("--seed", "1") == 2
    assert "output_dir: out holds data that was made of other prompts" in capsys.readouterr().err


def test_an_edited_function_is_asked_again(folder: Path) -> None:
    def preferences() -> list[float]:
        rows = [json.loads(line) for line in Path("out/preferences.jsonl").read_text().splitlines()]
        return [row["preference"] for row in rows]

    assert run() == 0 and preferences() == pytest.approx([0.625] * 6)
    Path("mine.py").write_text(FUNCTIONS.replace("/ 4 - 0.125", "/ 2 - 0.25"))
    assert run() == 0 and preferences() == pytest.approx([0.75] * 6)
    assert "more words on" not in Path("out/sft.jsonl").read_text()
    Path("mine.py").write_text(FUNCTIONS.replace(" words on", " more words on"))
    assert run() == 0 and "more words on" in Path("out/sft.jsonl").read_text()


def test_a_folder_of_another_setting_of_the_judge_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = "{{reward: mine.py:score, tie_band: {}}}"
    assert run("--judge", named.format(0)) == run("--judge", named.format(0)) == 0
    before = Path("out/preferences.jsonl").read_bytes()
    assert run("--judge", named.format(0.5)) == 2
    assert "or by another judge; choose another folder" in capsys.readouterr().err
    assert Path("out/preferences.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--judge", "{function: mine.py:undecided}"), "no preferences: every pair tied (6 pairs); measure the judge"),
        (("--judge", "{function: mine.py:silent}"), "no preferences: the judge has no opinion on any of the 6 pairs"),
        (("--model", "mine.py:alike"), "no preferences: no prompt got two different responses; raise temperature"),
    ],
)
def test_a_preference_half_without_preferences_is_told_and_no_success(
    flags: tuple[str, str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.py").write_text(f"{FUNCTIONS}\ndef alike(conversations):\n    return ['Well.' for _ in conversations]\n")
    assert run(*flags, "--json", "figures.json") == 2
    said = capsys.readouterr()
    assert message in said.err and "0 preferences" in said.out
    assert Path("out/sft.jsonl").exists() and json.loads(Path("figures.json").read_text())["rows"]["preferences"] == 0
    assert run(*flags, "--sft_share", "1", "--output_dir", "other") == 0


def test_keys_of_a_judge_with_a_question_of_its_own_are_refused(
    folder: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, value in (("bias", 0.5), ("principle", "Be kind."), ("prompt", "'{prompt} {first} {second}'")):
        assert run("--judge", f"{{model: {tiny_model_dir}, {key}: {value}}}") == 2
        assert f"--judge: leave out {key}: a constitution asks its own question" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_dry_run_says_what_is_asked_for_and_writes_nothing(
    folder: Path, tiny_model_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--model", tiny_model_dir, "--max_new_tokens", "8", "--max_critique_tokens", "8", "--limit", "5")
    assert run(*flags, "--judge", "mine.py:score", "--preference_model", "mine.py:write", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "all 5" in out and "default: 10 principles" in out and "responses to compare by" in out
    assert "mine.py:score" in out and "Nothing was written" in out and not Path("out").exists()
    assert run(*flags, "--max_new_tokens", "800", "--dry-run") == 2
    assert "a revision needs room for the examples" in capsys.readouterr().err


def test_after_ctrl_c_the_same_command_goes_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("stop").touch()
    assert run() == 130
    assert "the same command goes on: hf-align constitution --config recipe.yaml" in capsys.readouterr().err
    Path("stop").unlink()
    assert run() == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--promts", "x"), "--promts is not a valid key; did you mean prompts?"),
        (("--prompts", "''"), "prompts is missing: write `prompts: ...`"),
        (("--prompts", "none.jsonl"), "prompts: there is no file none.jsonl"),
        (("--model", "mine.py:nothing"), "--model: mine.py has no function nothing"),
        (("--judge", "null"), "judge is missing: "),
        (
            ("--judge", "{endpoint: m, url: 'http://localhost:1/v1', principle: Be kind.}"),
            "--judge: leave out principle: a constitution asks its own question",
        ),
        (("--judge", "{function: mine.py:none}"), "--judge: mine.py has no function none"),
        (("--constitution", "none.yaml"), "constitution: there is no file none.yaml"),
        (("--limit", "0"), "--limit is 0; give a number of rows, from 1"),
        (("--threshold", "2"), "threshold is 2.0; it must be between 0 and 1"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    flags: tuple[str, str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*flags) == 2
    assert message in capsys.readouterr().err and not Path("out").exists()


@pytest.mark.slow
def test_a_process_killed_by_the_system_goes_on_to_the_same_data(folder: Path, tiny_model_dir: str) -> None:
    principles = [
        f"  - {{id: {name}, text: Be {name}., critique: Is it {name}, revision: Be {name}., question: Which}}"
        for name in ("kind", "brief")
    ]
    Path("constitution.yaml").write_text("\n".join(["principles:", *principles, ""]))
    Path("recipe.yaml").write_text(
        f"model: {tiny_model_dir}\njudge: {tiny_model_dir}\nprompts: prompts.jsonl\nconstitution: constitution.yaml\n"
        "revisions: 2\nexamples: 0\nthreshold: 0\nbatch_size: 2\nmax_new_tokens: 12\nmax_critique_tokens: 8\n"
        "temperature: 1.0\ncritique_temperature: 0.7\nvotes: 1\nseed: 1\n"
    )
    command = [sys.executable, "-m", "hf_align.cli", "constitution", "--config", "recipe.yaml", "--output_dir"]
    subprocess.run([*command, "whole"], check=False, capture_output=True, timeout=250)
    whole = {path.name: path.read_bytes() for path in Path("whole").iterdir() if path.is_file()}
    stored = len(list(Path("whole/parts").iterdir()))
    assert stored > 15 and len(whole["steps.jsonl"].splitlines()) > 20
    for finished in (1, stored // 3, 2 * stored // 3):
        process = subprocess.Popen([*command, "out"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(Path("out/parts").glob("*.json"))) < finished:
            time.sleep(0.002)
        assert process.poll() is None, f"it ended before {finished} of {stored} steps"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "out"], check=False, capture_output=True, timeout=250)
    assert {path.name: path.read_bytes() for path in Path("out").iterdir() if path.is_file()} == whole
