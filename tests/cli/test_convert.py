import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from hf_align.cli.main import main

GOOD = {"prompt": "Hi.", "chosen": "Hello.", "rejected": "N/A"}
LINE = json.dumps(GOOD) + "\n"
RATED = [
    {"prompt": "Name a gem.", "response": "Opal.", "rating": 4, "seen": "2024-01-31"},
    {"prompt": "Name a gem.", "response": "N/A", "rating": 1, "seen": "2024-02-01"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def write(name: str, content: str | bytes) -> None:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def test_rows_are_converted_and_what_was_done_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    write("rated.jsonl", "".join(json.dumps(row) + "\n" for row in RATED))
    assert main(["convert", "rated.jsonl", "pairs.jsonl", "--json", "counts.json"]) == 0
    pair = {"prompt": "Name a gem.", "chosen": "Opal.", "rejected": "N/A", "margin": 3.0}
    besides = {"chosen_seen": "2024-01-31", "rejected_seen": "2024-02-01"}  # no times
    assert lines("pairs.jsonl") == [{**pair, **besides, "chosen_ratings": [4.0], "rejected_ratings": [1.0]}]
    shown = capsys.readouterr().out
    assert "recognised rated_responses (one rated response a row); rows: 2, pairs: 1; left out: nothing" in shown
    assert "written: pairs.jsonl with the columns prompt, chosen, rejected, margin" in shown
    counts = json.loads(Path("counts.json").read_text())
    assert (counts["layout"], counts["rows_in"], counts["rows_out"]) == ("rated_responses", 2, 1)
    assert main(["convert", "pairs.jsonl", "again.parquet"]) == 0
    assert pq.read_table("again.parquet").to_pylist() == lines("pairs.jsonl")


def test_figures_alone_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**GOOD, "topic": "x"}, {**GOOD, "prompt": "Bye."}]
    write("rows.json", json.dumps(rows))
    capsys.readouterr()
    assert main(["convert", "rows.json", "out", "--json", "-", "--limit", "1"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["kind"] == "pairs" and figures["rows_in"] == 1 and figures["out"] == "out"
    assert Dataset.load_from_disk("out").to_list() == rows[:1]


def test_choices_reach_the_conversion() -> None:
    rows = [{"prompt": "Hi.", "responses": ["a", "b", "c"], "scores": [3.0, 3.0, 1.0]}]
    write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert main(["convert", "rows.jsonl", "out.jsonl"]) == 0 and lines("out.jsonl") == rows
    assert main(["convert", "rows.jsonl", "out.jsonl", "--overwrite", "--pairs", "--layout", "rankings"]) == 0
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in lines("out.jsonl")] == [
        ("a", "c", 2.0),
        ("b", "c", 2.0),
    ]
    tie = {"prompt": "Two?", "response_1": "2", "response_2": "II", "preference_strength": 0}
    write("ties.jsonl", json.dumps(tie) + "\n")
    assert main(["convert", "ties.jsonl", "out.jsonl", "--overwrite"]) == 2
    assert main(["convert", "ties.jsonl", "out.jsonl", "--overwrite", "--ties", "keep"]) == 0
    assert [row["weight"] for row in lines("out.jsonl")] == [0.5, 0.5]


@pytest.mark.parametrize(
    "name", ["rows.jsonl.gz", "rows.json.gz", "rows.csv", "rows.csv.gz", "rows.tsv", "saved", "split"]
)
def test_every_kind_of_file_is_read(name: str) -> None:
    table = "prompt,chosen,rejected\nHi.,Hello.,N/A\n"
    if name in ("saved", "split"):
        rows = Dataset.from_list([GOOD])
        (DatasetDict({"train_prefs": rows}) if name == "split" else rows).save_to_disk(name)
    else:
        kinds = {".jsonl": LINE, ".json": json.dumps([GOOD]), ".csv": table, ".tsv": table.replace(",", "\t")}
        content = next(text for suffix, text in kinds.items() if f"{suffix}." in f"{name}.").encode()
        write(name, gzip.compress(content) if name.endswith(".gz") else content)
    assert main(["convert", name, "out.jsonl"]) == 0
    assert lines("out.jsonl") == [GOOD]


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


PARQUET = parquet(pa.table({name: [value] for name, value in GOOD.items()}))
TWICE = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["chosen", "chosen"])
HEAD = "prompt,chosen,rejected\n"
BROKEN: list[tuple[str, str | bytes, str]] = [
    ("a.jsonl", "", "a.jsonl can't be read: it is empty"),
    ("a.json", " \n\n ", "a.json can't be read: it is empty"),
    ("a.csv", "", "a.csv can't be read: it is empty"),
    ("a.jsonl", b"\0" * 99, "it holds only NUL bytes"),
    ("a.jsonl", LINE + LINE.replace("Hi", "H\0i"), "a.jsonl, line 2 holds a NUL byte"),
    ("a.csv", HEAD + "H\0i,b,c\n", "a.csv, line 2 holds a NUL byte"),
    ("a.jsonl", LINE + LINE[:20], "a.jsonl, line 2 is not a JSON object"),
    ("a.jsonl", str(GOOD), "line 1 is not a JSON object"),
    ("a.jsonl", "1\n2\n", "line 1 is not a JSON object"),
    ("a.jsonl", json.dumps(GOOD, indent=1), "line 1 is only the start of a JSON object"),
    ("a.jsonl", json.dumps([GOOD, GOOD]), "it is one JSON list, not one object a line; name it .json"),
    ("a.jsonl", json.dumps([GOOD, GOOD], indent=1), "it is one JSON list, not one object a line; name it .json"),
    ("a.jsonl", LINE + '{"prompt": 1, "prompt": 2}\n', "a.jsonl, line 2 has the key 'prompt' twice in one object"),
    ("a.json", f"[{LINE},{LINE[:20]}", "a.json, line 2 is cut off"),
    ("a.json", f"[{LINE}", "is cut off"),
    ("a.json", f"[{LINE},]", "a.json, line 2 is not JSON"),
    ("a.json", f"// rows\n[{LINE}]", "a.json, line 1 is not JSON"),
    ("a.json", json.dumps({"data": [GOOD]}), "whose rows are under 'data'; save that list alone"),
    (
        "a.json",
        json.dumps({name: [value] for name, value in {**GOOD, "rejected": 1}.items()}),
        "none of the known layouts",
    ),
    ("a.json", json.dumps({"chosen": ["a", "b"], "rejected": ["c"]}), "numbers of values (chosen 2, rejected 1)"),
    ("a.json", "3", "it is one JSON value, not a list of rows"),
    ("a.json", "[1, 2]", "row 0 of its list is not an object"),
    ("a.json", "[]", "it has no rows"),
    ("a.json", "[" * 99_999, "it is nested too deeply"),
    ("a.jsonl", LINE.encode("utf-16"), "it is UTF-16 text"),
    ("a.jsonl", LINE.encode() + "é".encode("latin-1"), "a.jsonl, line 2 is not UTF-8 (byte 1)"),
    ("a.csv", HEAD.encode() + "é,b,c\n".encode("latin-1"), "a.csv, line 2 is not UTF-8 (byte 1)"),
    ("a.jsonl", '{"prompt": "\\ud83d", "chosen": "a", "rejected": "b"}\n', "a.jsonl, line 1 holds half a character"),
    ("a.jsonl", LINE + json.dumps({**GOOD, "chosen": ["x"]}), "chosen is text in row 0 and list in row 1"),
    ("a.jsonl", '{"prompt": null, "chosen": [null], "rejected": [{"role": null}]}', "chosen (list of null)"),
    ("a.jsonl", '{"text": "Hi."}', "has none of the known layouts; it has text (text)"),
    ("a.txt", LINE, "a.txt is not one of .jsonl, .json, .parquet"),
    ("rows", LINE, "rows is not one of .jsonl, .json, .parquet"),
    ("a.csv", b"PK\x03\x04sheet", "it is a zip archive or a spreadsheet"),
    ("a.jsonl", PARQUET, "it is a Parquet file; name it .parquet"),
    ("a.parquet", LINE, "it is no Parquet file"),
    ("a.parquet", b"JUNK" + PARQUET[4:], "it is no Parquet file"),
    ("a.parquet", PARQUET[:-9], "it is a damaged Parquet file"),
    ("a.parquet", parquet(TWICE), "it has the column 'chosen' twice"),
    ("a.parquet", parquet(pa.table({"prompt": pa.array([], pa.string())})), "it has no rows"),
    ("a.parquet", "version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer, without the data"),
    ("a.jsonl", "<!DOCTYPE html><html></html>", "it is an HTML page"),
    ("a.jsonl.gz", LINE, "it is no gzip file"),
    ("a.jsonl", gzip.compress(LINE.encode(), mtime=0), "it is a gzip file"),
    ("a.jsonl.gz", gzip.compress(LINE.encode() * 99, mtime=0)[:-9], "it is a damaged gzip file"),
    ("a.csv.gz", gzip.compress(HEAD.encode() * 99, mtime=0)[:-9], "it is a damaged gzip file"),
    ("a.csv", HEAD + "a,b,c\na,b\n", "a.csv, line 3 has 2 values for 3 columns"),
    ("a.csv", HEAD + "a,b,c,d\n", "a.csv, line 2 has 4 values for 3 columns"),
    ("a.csv", HEAD + '"a,b,c\n', "a.csv, line 2 is not CSV"),
    ("a.csv", "prompt,chosen,chosen\na,b,c\n", "it has the column 'chosen' twice"),
    ("a.csv", "prompt,,rejected\na,b,c\n", "line 1 has no name for column 2"),
    (
        "a.csv",
        ",prompt\n0,a\n",
        "line 1 has no name for column 1; is it the index that pandas writes without index=False?",
    ),
    (
        "a.csv",
        "prompt, chosen, rejected\na,b,c\n",
        "needs chosen (is it ' chosen'?), rejected (is it ' rejected'?), too",
    ),
    ("a.csv", HEAD, "it has no rows"),
    ("a.csv", (HEAD + "a,b,c\n").replace(",", ";"), "its columns are separated by ';'"),
    ("a.csv", (HEAD + "a,b,c\n").replace(",", "\t"), r"its columns are separated by '\t'"),
]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that refuses its input and writes nothing."""
    capsys.readouterr()
    before = sorted(Path().rglob("*"))
    assert main(["convert", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    assert sorted(Path().rglob("*")) == before
    return shown.err


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_broken_file_is_refused_with_one_sentence(
    name: str, content: str | bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(name, content)
    assert message in refused([name, "out.jsonl"], capsys)


def two_splits(path: Path) -> None:
    rows = Dataset.from_list([GOOD])
    DatasetDict({"a": rows, "b": rows}).save_to_disk(path)


def without_arrow(path: Path) -> None:
    Dataset.from_list([GOOD]).save_to_disk(path)
    next(path.glob("*.arrow")).unlink()


def of_other_files(path: Path) -> None:
    path.mkdir()
    (path / "notes.bin").write_text("x")


def with_broken_info(path: Path) -> None:
    path.mkdir()
    (path / "dataset_info.json").write_text("junk")
    (path / "state.json").write_text("junk")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "doesn't contain any data files"),
        (of_other_files, "No (supported) data files found"),
        (two_splits, "has no split train or test or validation or eval; it has a, b"),
        (without_arrow, "its files are damaged or missing"),
        (with_broken_info, "its files are damaged or missing"),
        (lambda path: None, "Couldn't reach 'folder' on the Hub"),
    ],
)
def test_a_broken_folder_is_refused_with_one_sentence(
    make: Callable[[Path], Any], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    make(Path("folder"))
    assert message in refused(["folder", "out.jsonl"], capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.jsonl", "out.jsonl"], "DATASET: there is no file no.jsonl"),
        (["rows.jsonl", "rows.jsonl"], "OUT: rows.jsonl exists; add --overwrite (in Python overwrite=True) or"),
        (["rows.jsonl", "out.txt"], "OUT: out.txt is neither one of .jsonl, .parquet, .csv nor a folder"),
        (["chat.jsonl", "out.csv"], "OUT: a .csv file can't hold the lists in prompt, chosen, rejected"),
        (["rows.jsonl", "out.jsonl", "--layout", "pears"], "there is no layout pears; did you mean pairs?"),
        (["rows.jsonl", "out.jsonl", "--split", "test"], "--split is test, but rows.jsonl has no splits; leave it out"),
        ([".", "out.jsonl"], "the folder . has files of several kinds (chat.csv, chat.jsonl); name one file"),
        (["rows.jsonl", "out.jsonl", "--limit", "0"], "--limit is 0; give a number from 1"),
        (["rows.jsonl", "out.jsonl", "--min-gap", "-1"], "--min-gap must be a number of rating points >= 0"),
        (["rows.jsonl", "out.jsonl", "--min_gp", "1"], "convert does not know --min_gp; did you mean --min-gap?"),
        (["rows.jsonl", "out.jsonl", "--json", "no.jsonl/x/."], "json: "),
        (["rows.jsonl", "rows.jsonl/out.jsonl"], "OUT: rows.jsonl/out.jsonl can't be written"),
    ],
)
def test_wrong_arguments_are_refused_with_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("rows.jsonl", LINE)
    chat = {"prompt": "Hi.", "chosen": [{"role": "assistant", "content": "a"}]}
    write("chat.jsonl", json.dumps({**chat, "rejected": [{"role": "assistant", "content": "b"}]}))
    write("chat.csv", HEAD + "a,b,c\n")
    if message == "json: ":
        Path("no.jsonl").mkdir()
        arguments = [*arguments[:-1], "no.jsonl"]
    assert message in refused(arguments, capsys)
