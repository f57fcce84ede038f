"""`hf-align export` on a store in a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from hf_align.cli.main import main
from hf_align.feedback import PreferenceStore
from tests.feedback.export.filled import fill


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in a file, made once."""
    path = tmp_path_factory.mktemp("store") / "prefs.db"
    opened = PreferenceStore(f"sqlite:///{path}")
    fill(opened, 6)
    opened.close()
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copy(made, tmp_path)
    return "prefs.db"


def shown(arguments: Sequence[str], capsys: pytest.CaptureFixture[str], status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["export", *arguments]) == status
    output = capsys.readouterr()
    return output.out, output.err


def test_a_folder_is_written_with_a_summary_and_its_statistics(store: str, capsys: pytest.CaptureFixture[str]):
    out, err = shown(["--store", store, "prefs", "--license", "mit", "--json", "figures.json"], capsys)
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "exported 4 rows of 4 tasks with 12 answers by 3 annotators; left out: ties (2)"
    assert "strong: win rate 1.000" in out and lines[-2].startswith("written: prefs with the columns prompt, chosen, ")
    figures: dict[str, Any] = json.loads(Path("figures.json").read_text())
    assert (figures["rows"], figures["left_out"], figures["out"]) == (4, {"ties": 2}, "prefs")
    rows = load_dataset(str(Path("prefs").resolve()), split="train", cache_dir="cache")
    assert rows.column_names == figures["columns"] and len(rows) == 4


def test_json_on_standard_output_is_alone_there(store: str, capsys: pytest.CaptureFixture[str]):
    out, err = shown(
        [
            "--store",
            f"sqlite:///{store}",
            "soft.jsonl",
            "--soft-labels",
            "--ties",
            "keep",
            "--json",
            "-",
            "--method",
            "majority",
        ],
        capsys,
    )
    assert json.loads(out)["rows"] == 6 and err == ""
    rows = [json.loads(line) for line in Path("soft.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["preference"] for row in rows][2] == 0.5


def test_statistics_are_those_of_the_whole_store_and_export_nothing(store: str, capsys: pytest.CaptureFixture[str]):
    out, err = shown(["--store", store, "--statistics"], capsys)
    assert err == "" and out.splitlines()[0].startswith(
        "6 tasks on 6 prompts: 6 answered, 0 open, 0 gold questions; 18 "
    )
    assert "interval alpha is" in out and "Cleo S" in out and "high_value" in out
    plain, _ = shown(["--store", store, "--statistics", "--json", "-"], capsys)
    opened = PreferenceStore(f"sqlite:///{store}")
    assert json.loads(plain) == json.loads(json.dumps(opened.statistics()))
    opened.close()
    shown(["--store", store, "--statistics", "--json", "figures.json"], capsys)
    assert json.loads(Path("figures.json").read_text()) == json.loads(plain)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "OUT is missing: name a folder, a .jsonl or .parquet file, or ask for --statistics"),
        (["--statistics", "out"], "leave out OUT (out)"),
        (["--statistics", "--soft-labels"], "leave out the option for soft_labels"),
        (["--statistics", "--license", "mit"], "leave out the option for license"),
        (["--store", "no.db", "--statistics"], "there is no store no.db; hf-align collect makes one"),
        (["--store", "no.db", "out"], "there is no store no.db; hf-align collect makes one"),
        (["--store", "prefs.db", "out.txt"], "OUT: out.txt is neither one of"),
        (["--store", "prefs.db", "out.csv"], "OUT: a .csv file can't hold the lists in answers"),
        (["--store", "prefs.db", "notes.jsonl"], "OUT: notes.jsonl exists; add --overwrite"),
        (["--store", "prefs.db", "out.jsonl", "--test-share", "0.5"], "a split into train and test takes a folder"),
        (["--store", "prefs.db", "out", "--test-share", "2"], "--test-share is 2.0; give a number from 0 to below 1"),
        (["--store", "prefs.db", "out", "--soft-labels", "--rows", "votes"], "leave one out"),
        (["--store", "prefs.db", "out", "--adjudicator", "nobody"], "the store has no annotator nobody"),
        (["--store", "prefs.db", "out", "--method", "mean"], "invalid choice: 'mean'"),
        (
            ["--store", "prefs.db", "out", "--soft-lables"],
            "export does not know --soft-lables; did you mean --soft-labels?",
        ),
        (["--store", "empty.db", "out"], "the store has nothing to export: it has no tasks"),
    ],
)
def test_wrong_arguments_are_refused_with_one_sentence_and_nothing_is_written(
    arguments: list[str], message: str, store: str, capsys: pytest.CaptureFixture[str]
):
    Path("notes.jsonl").write_text("{}")
    if "empty.db" in arguments:
        PreferenceStore("sqlite:///empty.db").close()
    before = {path for path in Path().iterdir() if not path.name.endswith(("-wal", "-shm"))}
    out, err = shown(arguments, capsys, status=2)
    assert message in err and err.count("\n") == 1 and out == "" and "Traceback" not in err
    assert {path for path in Path().iterdir() if not path.name.endswith(("-wal", "-shm"))} == before


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]):
    out, _ = shown(["--help"], capsys)
    assert "hf-align export --store prefs.db preferences --license cc-by-4.0" in out


def test_names_stand_in_the_rows_only_on_request(store: str, capsys: pytest.CaptureFixture[str]):
    shown(["--store", store, "a.jsonl"], capsys)
    shown(["--store", store, "b.jsonl", "--names", "--no-reasons"], capsys)
    assert "Anna" not in Path("a.jsonl").read_text() and "Anna" in Path("b.jsonl").read_text()
    assert "clear" in Path("a.jsonl").read_text() and "clear" not in Path("b.jsonl").read_text()
