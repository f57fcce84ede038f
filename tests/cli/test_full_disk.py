"""Whatever a command writes: on a full disk it ends with one line, status 1, and nothing half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from datasets import Dataset

from hf_align.cli.main import main
from hf_align.tracking import RunRecord
from tests.test_full_disk import files_no_larger_than

ROWS = [{"prompt": f"Say {n}:", "chosen": f" the number {n}", "rejected": f" no number {n}"} for n in range(40)]


@pytest.mark.parametrize(
    ("arguments", "file", "limit"),
    [
        (["convert", "saved", "out.jsonl"], "out.jsonl", 150),
        (["convert", "saved", "out.csv"], "out.csv", 150),
        (["convert", "saved", "out.parquet"], "out.parquet", 150),
        (["convert", "saved", "out"], "out/data-00000-of-00001.arrow", 150),
        (["inspect", "rows.jsonl"], "datasets", 150),  # the cache that rows are read through
        (["inspect", "rows.jsonl", "--report", "page.html"], "page.html", 9_000),
        (["runs", "runs", "--report", "runs.html"], "runs.html", 150),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_a_command_writes(
    arguments: list[str],
    file: str,
    limit: int,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache") / "datasets")
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    Dataset.from_list(ROWS).save_to_disk("saved")  # read without the cache
    with RunRecord.start("runs", "mine") as record:
        session = record.session(prefix="mine")
        for step in range(3):
            session.log(step, {"loss": 1 / (1 + step)})
    before = sorted(os.listdir())
    capsys.readouterr()
    with files_no_larger_than(limit):
        assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{file} can't be written: it is larger than files may be here" in error
    assert sorted(os.listdir()) == before
