"""Files, folders, subsets and splits: every way to the same rows; broken files are in tests/cli/test_convert.py."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from hf_align.cli.main import main
from hf_align.data.sources import load_named, load_rows
from hf_align.errors import UserError

ROW = {"prompt": "None", "chosen": "2024-01-31", "rejected": "007"}
OTHER = {"prompt": "NA", "chosen": "2024-02-01T00:00:00Z", "rejected": "True"}
ROWS = [ROW, OTHER]


def written(suffix: str, rows: list[dict[str, Any]] = ROWS) -> bytes:
    if suffix.endswith(".gz"):
        return gzip.compress(written(suffix[:-3], rows), mtime=0)
    if suffix in (".csv", ".tsv"):
        lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        return "\n".join(("\t" if suffix == ".tsv" else ",").join(line) for line in lines).encode()
    return (json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))).encode()


TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz")


@pytest.mark.parametrize("suffix", TEXTS)
def test_texts_stay_texts_in_a_file_and_in_a_folder_of_shards(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"rows{suffix}").write_bytes(written(suffix))
    assert load_named(str(tmp_path / f"rows{suffix}"), "data", ("train",)).to_list() == ROWS
    (tmp_path / "shards").mkdir()
    for number, row in enumerate(ROWS):
        (tmp_path / "shards" / f"train-{number}{suffix}").write_bytes(written(suffix, [row]))
    assert load_named(str(tmp_path / "shards"), "data", ("train",)).to_list() == ROWS


def test_shards_share_their_columns_types(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,code,rating\nHi.,1,4\n")
    (tmp_path / "b.csv").write_text("rating,prompt,code,note\n4.5,Bye.,x1,\n")
    assert load_named(str(tmp_path), "data", ("train",)).to_list() == [
        {"prompt": "Hi.", "code": "1", "rating": 4.0, "note": None},
        {"prompt": "Bye.", "code": "x1", "rating": 4.5, "note": None},
    ]


def test_a_broken_shard_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-0.jsonl").write_bytes(written(".jsonl"))
    (tmp_path / "data" / "train-1.jsonl").write_text("\n{]\n")
    with pytest.raises(UserError, match=r"^data: .*/data/train-1.jsonl, line 2 is not a JSON object"):
        load_named(str(tmp_path), "data", ("train",))
    (tmp_path / "data" / "train-1.jsonl").write_text("")
    with pytest.raises(UserError, match=r"^data: .*/data/train-1.jsonl can't be read: it is empty"):
        load_named(str(tmp_path), "data", ("train",))


def test_a_broken_shard_of_parquet_is_named(tmp_path: Path) -> None:
    for number in (0, 1):
        Dataset.from_list(ROWS).to_parquet(tmp_path / f"train-{number}.parquet")
    whole = (tmp_path / "train-1.parquet").read_bytes()
    for damaged, words in (
        (whole[:-20], "it is a damaged Parquet file"),
        (whole[:-60] + bytes(20) + whole[-40:], "it is a damaged Parquet file"),
        (b"PK\x03\x04", "it is a zip archive"),
    ):
        (tmp_path / "train-1.parquet").write_bytes(damaged)
        with pytest.raises(UserError, match=rf"train-1\.parquet can't be read: {words}") as told:
            load_rows(str(tmp_path), "train", 0)
        assert "Exception" not in str(told.value)


def test_one_split_is_taken_and_of_several_the_name_chooses(tmp_path: Path) -> None:
    one, two = Dataset.from_list([ROW]), Dataset.from_list(ROWS)
    DatasetDict({"train_prefs": two}).save_to_disk(tmp_path / "one")
    assert len(load_rows(str(tmp_path / "one"), "train", 0)) == 2
    DatasetDict({"train_prefs": two, "test_prefs": one}).save_to_disk(tmp_path / "two")
    with pytest.raises(UserError, match=r"no split train; it has train_prefs, test_prefs: name one, as .*two:train_p"):
        load_rows(str(tmp_path / "two"), "train", 0)
    assert len(load_rows(f"{tmp_path / 'two'}:test_prefs", "train", 0)) == 1
    with pytest.raises(UserError, match=r"no split test; it has train_prefs"):
        load_rows(f"{tmp_path / 'two'}:test", "train", 0)
    one.save_to_disk(tmp_path / "plain")
    (tmp_path / "rows.json").write_bytes(written(".json"))
    for name in ("plain", "rows.json"):
        with pytest.raises(UserError, match=r"splits; leave out :train"):
            load_rows(f"{tmp_path / name}:train", "train", 0)


CARD = """---
configs:
- config_name: a
  data_files: [{split: train, path: a.jsonl}, {split: test, path: b.jsonl}]
- config_name: b
  data_files: b.jsonl
---
"""


def test_of_several_subsets_the_name_chooses(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD)
    for name, row in zip("ab", ROWS, strict=True):
        (tmp_path / f"{name}.jsonl").write_bytes(written(".jsonl", [row]))
    with pytest.raises(UserError, match=r"has the subsets a, b; name one, as .*:a"):
        load_rows(str(tmp_path), "train", 0)
    for name, row in ((":a", ROW), (":a:test", OTHER), (":b", OTHER)):
        assert load_rows(f"{tmp_path}{name}", "train", 0).to_list() == [row]


def test_a_card_may_say_how_its_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: a\n  data_files: a.csv\n  sep: ';'\n---\n")
    (tmp_path / "a.csv").write_text("prompt;chosen\na;b\n")
    assert load_rows(str(tmp_path), "train", 0).to_list() == [{"prompt": "a", "chosen": "b"}]


def test_files_of_other_kinds_are_read_by_their_library(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Dataset.from_list(ROWS).to_parquet(tmp_path / "train" / "a.parquet")
    assert load_rows(str(tmp_path), "train", 0).to_list() == ROWS


def test_the_only_split_is_not_trained_and_evaluated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.jsonl").write_bytes(written(".jsonl"))
    names = ["--train_dataset", "rows", "--eval_dataset", "rows", "--output_dir", "out", "--report_to", "none"]
    assert main(["reward", "--model", "nowhere/model", *names]) == 2
    assert "eval_dataset: rows has one split, which is trained on; name other rows" in capsys.readouterr().err


def test_files_of_the_hub_that_were_downloaded_are_read_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "datasets--nobody--gems"
    for name, content in {"refs/main": b"abc", "snapshots/abc/test.jsonl": written(".jsonl")}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert load_rows("nobody/gems", "train", 0).to_list() == ROWS
    assert load_rows("nobody/gems:test", "train", 0).to_list() == ROWS
    with pytest.raises(UserError, match=r"^train_dataset: nobody/gems has no split x; it has test"):
        load_rows("nobody/gems:x", "train", 0)
    with pytest.raises(UserError, match=r"^train_dataset: "):
        load_rows("nobody/rocks", "train", 0)
