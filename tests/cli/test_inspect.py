"""`hf-align inspect`: what it prints and writes, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hf_align.cli.main import main

GOOD = [{"prompt": f"Question {n}?", "chosen": f"A full answer {n}.", "rejected": f"None {n}."} for n in range(30)]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_it_prints_what_was_found_and_writes_page_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    name = write("pairs.jsonl", GOOD)
    assert main(["inspect", name, "--report", "i.html", "--json", "i.json", "--limit", "20"]) == 0
    shown = capsys.readouterr().out
    assert "20 pairs: prompt, chosen, rejected" in shown and "report: i.html" in shown
    page, figures = Path("i.html").read_text(), json.loads(Path("i.json").read_text())
    assert figures["facts"]["rows"] == 20 and figures["facts"]["data"] == name
    assert "hf-align inspect pairs.jsonl --report i.html --json i.json --limit 20" in page
    held_out = write("hf_0123456789abcdefghij.jsonl", GOOD[:3])  # what looks like a token is not repeated
    assert main(["inspect", name, "--eval-data", held_out, "--json", "-"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["rows"] == 30 and "0123456789abcdefghij" not in facts["command"]


def test_other_layouts_are_converted_which_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": r["prompt"], "response_j": r["chosen"], "response_k": r["rejected"]} for r in GOOD]
    assert main(["inspect", write("stack.jsonl", rows), "--fix", "clean.jsonl"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "recognised stack_exchange_paired" in shown and "Row numbers are those of the converted rows" in shown
    assert [json.loads(line) for line in Path("clean.jsonl").read_text().splitlines()] == GOOD


def test_bad_rows_are_no_failure_unless_asked_and_are_left_out_of_the_clean_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = [{**GOOD[0], "rejected": GOOD[0]["chosen"]}, {**GOOD[1], "prompt": "Where is the Caf\u00c3\u00a9?"}, GOOD[2]]
    name = write("bad.jsonl", [*GOOD, *bad])
    assert main(["inspect", name, "--fix", "clean.jsonl"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Not yet: 1 error in 1 of 33 rows." in shown
    assert "fixed: clean.jsonl (2 dropped, 1 changed; log: clean-log.jsonl)" in shown
    lines = Path("clean.jsonl").read_text(encoding="utf-8").splitlines()
    assert (
        lines[:30] == [json.dumps(row) for row in GOOD] and json.loads(lines[30])["prompt"] == "Where is the Caf\u00e9?"
    )
    log = [json.loads(line) for line in Path("clean-log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(each["row"], each["kinds"]) for each in log] == [
        (30, ["identical_responses"]),
        (31, ["broken_encoding"]),
        (32, ["duplicate_pair"]),
    ]
    assert main(["inspect", name, "--strict"]) == 1
    assert main(["inspect", "clean.jsonl", "--strict"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["none.jsonl"], "DATASET: there is no file none.jsonl"),
        (["pairs.jsonl", "--limit", "0"], "--limit is 0; give a number from 1"),
        (["pairs.jsonl", "--max-length", "0"], "--max-length is 0; give a number of tokens from 1"),
        (["pairs.jsonl", "--min-agreement", "1.5"], "--min-agreement is 1.5; give a share from 0 to 1"),
        (["pairs.jsonl", "--min-agreement", "nan"], "--min-agreement is nan; give a share from 0 to 1"),
        (["pairs.jsonl", "--min-margin", "nan"], "--min-margin is nan; give a number from 0"),
        (["pairs.jsonl", "--min-margin", "-1"], "--min-margin is -1.0; give a number from 0"),
        (
            ["pairs.jsonl", "--tokenizer", "./none"],
            "--tokenizer: Can't load a tokenizer from './none': there is no such folder",
        ),
        (["pairs.jsonl", "--eval-data", "none.jsonl"], "--eval-data: there is no file none.jsonl"),
        (["pairs.jsonl", "--report", "i.pdf"], "--report is i.pdf; a report is saved as .html or .json"),
        (["pairs.jsonl", "--report", "pairs.jsonl/i.html"], "--report: pairs.jsonl/i.html can't be written"),
        (["pairs.jsonl", "--json", "pairs.jsonl/i.json"], "--json: pairs.jsonl/i.json can't be written"),
        (["pairs.jsonl", "--fix", "pairs.jsonl"], "OUT: pairs.jsonl exists; add --overwrite"),
        (["pairs.jsonl", "--fix", "pairs.jsonl/clean.jsonl"], "OUT: pairs.jsonl/clean.jsonl can't be written"),
        (["pairs.jsonl", "--fix", "clean.txt"], "OUT: clean.txt is neither one of .jsonl"),
        (["other.jsonl"], "dataset: the data set has none of the known layouts; it has one (number), two (number)"),
        (["pairs.jsonl", "--fixed", "x"], "inspect does not know --fixed; did you mean --fix?"),
    ],
)
def test_bad_input_is_one_line_and_status_2(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("pairs.jsonl", GOOD)
    write("other.jsonl", [{"one": 1, "two": 2}])
    assert main(["inspect", *flags]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1
    assert shown.out == "", "refused before the inspection"
