"""Written rows are read back as they were."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_align.data.sinks import Source, check_out, write_rows
from hf_align.data.sources import load_named
from hf_align.errors import UserError

MESSAGES = [{"role": "user", "content": "Grüße"}]
ROWS = Dataset.from_dict(
    {
        "prompt": ["a", 'b\n"q",é'],
        "messages": [MESSAGES, MESSAGES * 2],
        "id": [7, 2**53 + 1],
        "score": [0.1 + 0.2, -1e-300],
        "scores": [[1 / 3, 2.0], []],
        "flag": [True, None],
    },
    features=Features(
        {
            "prompt": Value("string"),
            "messages": List({"role": Value("string"), "content": Value("string")}),
            "id": Value("int64"),
            "score": Value("float64"),
            "scores": List(Value("float64")),
            "flag": Value("bool"),
        }
    ),
)


@pytest.mark.parametrize("out", ["rows.jsonl", "rows.parquet", "rows.csv", "folder"])
def test_rows_come_back_with_values_types_and_order(out: str, tmp_path: Path) -> None:
    rows = ROWS.select_columns(["prompt", "id", "score", "flag"]) if out.endswith("csv") else ROWS
    path = str(tmp_path / "new" / out)
    write_rows(rows, path)
    read = load_named(path, "data", ("train",))
    assert read.column_names == rows.column_names
    assert read.to_list() == rows.to_list()
    if not out.endswith("csv"):
        assert read.features == rows.features
    assert [file.name for file in (tmp_path / "new").iterdir()] == [out]


def test_text_files_are_copied_as_they_stand(tmp_path: Path) -> None:
    given = [
        {"day": "2024-01-31", "n": 1, "prompt": "é", "nested": {"a": 1}},
        {"n": 2.0, "day": "x", "nested": {"b": None}},
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n\n".join(map(json.dumps, given)) + "\n", encoding="utf-8")
    added = Dataset.from_dict({"n": [0, 0], "score": [0.5, float("nan")]})
    write_rows(added, out, source=Source(str(source), 2), added=["score"])
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert written == [{**given[0], "score": 0.5}, {**given[1], "score": None}]
    assert list(written[1]) == ["n", "day", "nested", "score"]
    write_rows(added.select([0]), out, source=Source(str(source), 2), added=["score"])
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == written[:1], "the first rows"

    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('code,prompt\n007,"a\nb"\n1e3,c\n')
    write_rows(added, out, source=Source(str(source), 2), added=["score"])
    assert out.read_text().splitlines() == ["code,prompt,score", '007,"a', 'b",0.5', "1e3,c,nan"]


def test_a_source_that_doesnt_hold_these_rows_isnt_copied(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"a": 1}\n')
    for given in (Source(str(source), 2), Source("ORG/DATA", 2)):
        write_rows(Dataset.from_dict({"b": [1, 2]}), out, source=given, added=["b"])
        assert out.read_text() == '{"b": 1}\n{"b": 2}\n'


def test_times_are_written_as_text_and_bytes_refused(tmp_path: Path) -> None:
    write_rows(Dataset.from_dict({"at": [datetime(2024, 1, 31, 12)]}), tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"at": "2024-01-31T12:00:00"}
    with pytest.raises(UserError, match=r"^OUT: \.jsonl can't hold a value of type bytes"):
        write_rows(Dataset.from_dict({"raw": [b"\0"]}), tmp_path / "b.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"], "nothing half-written"


def test_what_cannot_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    (tmp_path / "old.jsonl").touch()
    (tmp_path / "plain").touch()
    (tmp_path / "folder.csv").mkdir()
    flat: Any = {"a": Value("string"), "b": ClassLabel(names=["x"])}

    def refusal(name: str, overwrite: bool = False, features: Any = flat) -> str:
        with pytest.raises(UserError) as caught:
            check_out(tmp_path / name, Features(features), overwrite=overwrite)
        return str(caught.value)

    assert "is neither one of .jsonl, .parquet, .csv nor a folder" in refusal("a.txt")
    assert "old.jsonl exists; add --overwrite" in refusal("old.jsonl")
    assert "plain is a file" in refusal("plain")
    assert "plain is no folder that can be written to" in refusal("plain/a.jsonl")
    assert "folder.csv is a folder" in refusal("folder.csv", overwrite=True)
    assert "full exists" in refusal("full")
    assert "full holds other files than a data set" in refusal("full", overwrite=True)
    assert "can't hold the lists in s, m;" in refusal(
        "a.csv", features={**flat, "s": List(Value("float64")), "m": {"x": Value("string")}}
    )
    check_out(tmp_path / "old.jsonl", Features(flat), overwrite=True)
    check_out(tmp_path / "new.csv", Features(flat))
    write_rows(ROWS, tmp_path / "saved")
    check_out(tmp_path / "saved", Features(flat), overwrite=True)
