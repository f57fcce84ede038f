"""Names at which there is nothing that a command can read or write: one sentence each, before anything is done."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from hf_align.cli.main import main

READ = """
convert {}.jsonl out.jsonl
convert {} out.jsonl
inspect {}.csv
inspect pairs.jsonl --tokenizer {}
inspect pairs.jsonl --eval-data {}.jsonl
score --model {} pairs.jsonl out.jsonl
score --model m {}.jsonl out.jsonl
score --best-of 2 --policy {} --model m pairs.jsonl out.jsonl
evaluate reward --model {} --data pairs.jsonl
evaluate reward --model m --data {}.jsonl
evaluate judge --judge {} --data pairs.jsonl
evaluate policy --model {} --data pairs.jsonl
evaluate policy --model m --data {}.jsonl
export --store {}.db out
annotate --store {}.db
select --data {}.jsonl --model m
select --data pairs.jsonl --model {}
select --data pairs.jsonl --model m --gpu 24GB --rules {}.yaml
runs {}
plan --model {} --algorithm dpo --gpu 24GB
plan --config {}.yaml --algorithm dpo --gpu 24GB
push {} ORG/NAME
collect --config {}.yaml
constitution --config {}.yaml
improve --config {}.yaml
hybrid --config {}.yaml
benchmark --config {}.yaml
sweep --config {}.yaml
dpo --config {}.yaml
dpo --model {} --train_dataset pairs.jsonl
reward --model m --train_dataset {}.jsonl
sft --model m --train_dataset pairs.jsonl --eval_dataset {}.jsonl
ppo --model m --train_dataset pairs.jsonl --reward {}.py:f
""".strip().splitlines()
"""Commands that read what is at {}."""
WRITTEN = """
convert pairs.jsonl {}.jsonl
convert pairs.jsonl {}
convert pairs.jsonl out.jsonl --json {}
inspect pairs.jsonl --fix {}.jsonl
inspect pairs.jsonl --report {}.html
inspect pairs.jsonl --json {}
score --model m pairs.jsonl {}.jsonl
score --model m pairs.jsonl out.jsonl --json {}
evaluate reward --model m --data pairs.jsonl --report {}.html
evaluate reward --model m --data pairs.jsonl --json {}
evaluate judge --judge vader --data pairs.jsonl --report {}.html
evaluate policy --model m --data pairs.jsonl --json {}
evaluate policy --model m --data pairs.jsonl --judge vader --judge rewards.py:length --front {}.html
export --store prefs.db {}
export --store prefs.db out --json {}
select --data pairs.jsonl --model m --json {}
runs --report {}.html
plan --model m --algorithm dpo --json {}
plan --model m --algorithm dpo --recipe {}
collect --json {}
constitution --json {}
improve --json {}
benchmark --json {}
dpo --model m --train_dataset pairs.jsonl --output_dir {}
quickstart --profile smoke --out {}
""".strip().splitlines()
"""Commands that write to {}."""
PLACES = {"too long": "n" * 300, "in a file": "pairs.jsonl/x", "in a circle": "loop/x"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pair = {"prompt": "Name a gem.", "chosen": " An opal.", "rejected": " A glue."}
    Path("pairs.jsonl").write_text(json.dumps(pair))
    Path("loop").symlink_to("loop")


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence with which a command refuses its input, which leaves everything as it was."""
    before = sorted(os.listdir())
    assert main(words) == 2
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("hf-align: error: ")]
    assert len(lines) == 1 and "Traceback" not in shown.err, shown
    assert not re.search(r"\w+Error\b|\[Errno", lines[0]), lines
    assert sorted(os.listdir()) == before
    return lines[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("line", [*READ, *WRITTEN])
def test_a_place_where_nothing_can_be(line: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    named = refused(shlex.split(line.format(PLACES[place])), capsys)
    assert PLACES[place][:90] in named, named


@pytest.mark.parametrize("line", WRITTEN)
def test_a_file_without_a_name(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)
    refused(["" if "{}" in word else word for word in words], capsys)
