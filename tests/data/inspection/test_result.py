"""An inspection as an object: what it counts, saves, shows and fixes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_align.data.inspection.findings import Kind
from hf_align.data.inspection.result import Inspection
from hf_align.data.sinks import Source
from hf_align.errors import UserError

EMPTY = Kind("empty_response", "defects", "error", "Drop them.")
ENCODING = Kind("broken_encoding", "defects", "warning", "Repair them.")
SHORT = Kind("short", "size", "note", "Nothing to do.")
ROWS = [{"prompt": "p", "chosen": f"<b>cafÃ©</b> {n}", "rejected": "b", "at": "2024-01-31"} for n in range(60)]


def inspection(rows: Dataset | None = None, findings: Any = None) -> Inspection:
    """A made one: an error in 30 rows, a repair in 2, one of them dropped."""
    found = [
        SHORT.found((), "The mean row is short."),
        EMPTY.found(range(30), "30 rows have an empty chosen.", example="<i>empty</i>", drop=[0]),
        ENCODING.found([0, 5], "2 rows are broken.", changes={n: {"chosen": f"<b>café</b> {n}"} for n in (0, 5)}),
    ]
    data = Dataset.from_list(ROWS) if rows is None else rows
    facts = {
        "rows": len(data),
        "columns": data.column_names,
        "layout": "pairs",
        "converted": "",
        "tokenizer": None,
        "max_length": 9,
    }
    facts |= {"max_prompt_length": None, "eval_rows": None, "versions": {"Python": "3"}, "data": "<data>"}
    return Inspection(found if findings is None else findings, {"size": {}, "defects": {}}, facts, data)


def test_findings_are_counted_by_severity_and_unpack() -> None:
    made = inspection()
    assert (made.errors, made.warnings, made.ok) == (1, 1, False) and inspection(findings=[]).ok
    kind, severity, rows, message, fix = made.findings[1]
    assert (kind, severity, len(rows), message) == ("empty_response", "error", 30, "30 rows have an empty chosen.")
    assert fix == "Drop them."
    assert "rows=" not in repr(made).partition("findings=[")[0] and "Dataset" not in repr(made)


def test_the_json_has_all_rows_and_the_page_and_the_text_the_first_ones(tmp_path: Path) -> None:
    made = inspection()
    made.save(tmp_path / "i.json")
    saved = json.loads((tmp_path / "i.json").read_text(), parse_constant=pytest.fail)
    assert saved["counts"] == {"error": 1, "warning": 1, "note": 1} and saved["ok"] is False
    assert saved["fixed"] == {"dropped": 1, "changed": 1}
    assert saved["findings"][1]["rows"] == list(range(30)) and saved["findings"][2]["changes"] == [0, 5]
    made.save(tmp_path / "i.html")
    page, text = (tmp_path / "i.html").read_text(), str(made)
    for shown in (" ".join(each.split()) for each in (page, text)):
        assert "18, 19 and 10 more" in shown and "20, 21" not in shown
        assert "Not yet: 1 error in 30 of 60 rows." in shown and "1 of 60 rows dropped and 1 repaired" in shown
    assert "<i>empty" not in page and "&lt;i&gt;empty" in page and "&lt;data&gt;" in page
    assert max(map(len, text.splitlines())) <= 120
    assert made._repr_html_().startswith("<iframe")
    clean = str(inspection(findings=[]))
    assert clean.startswith("Yes: nothing that speaks against training on it.") and "Nothing found." in clean


@pytest.mark.parametrize("out", ["clean.jsonl", "clean.csv", "clean.parquet", "clean"])
def test_the_clean_rows_are_written_with_a_log_and_nothing_is_overwritten_unasked(out: str, tmp_path: Path) -> None:
    made, target = inspection(), tmp_path / out
    log = made.write_fixed(target)
    assert log == tmp_path / "clean-log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == json.loads(json.dumps(made.log))
    assert [(line["row"], line["action"], line["kinds"]) for line in lines] == [
        (0, "dropped", ["empty_response"]),
        (5, "changed", ["broken_encoding"]),
    ]
    readers = {".jsonl": Dataset.from_json, ".csv": Dataset.from_csv, ".parquet": Dataset.from_parquet}
    read: Any = readers.get(target.suffix, Dataset.load_from_disk)
    written = read(str(target))
    assert written["chosen"][:] == made.fixed()["chosen"][:] and len(written) == 59
    for taken in (target, tmp_path / "other.jsonl"):
        (tmp_path / "other-log.jsonl").write_text("")
        with pytest.raises(UserError, match=r"exists; add --overwrite"):
            made.write_fixed(taken)
    made.write_fixed(target, overwrite=True)


def test_rows_of_a_text_file_keep_their_spelling(tmp_path: Path) -> None:
    lines = [json.dumps({**row, "n": 1.50} if n % 2 else row, ensure_ascii=False) for n, row in enumerate(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n\n")
    rows: Any = Dataset.from_json(str(tmp_path / "rows.jsonl"), cache_dir=str(tmp_path / "cache"))
    made = inspection(rows)
    made.write_fixed(tmp_path / "clean.jsonl", source=Source(str(tmp_path / "rows.jsonl"), len(ROWS)))
    clean = (tmp_path / "clean.jsonl").read_text().splitlines()
    assert clean[:4] == lines[1:5] and clean[5:] == lines[6:]
    assert json.loads(clean[4]) == {**ROWS[5], "n": 1.5, "chosen": "<b>café</b> 5"}
