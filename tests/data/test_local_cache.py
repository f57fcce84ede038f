"""Local files are read as they are now, whatever was read before under the same name, card, size and time."""

import gzip
import os
import time
from pathlib import Path

import pytest
from datasets import Dataset

from hf_align.data.sources import load_rows

ROW = {"prompt": "Say hi.", "chosen": "Hi!", "rejected": "No."}
OTHER = {"prompt": "Say hi.", "chosen": "No.", "rejected": "Hi!"}
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: {}
  - split: test
    path: data/test.parquet
---
"""
SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".jsonl.gz", ".csv.gz")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def write(path: Path, row: dict[str, str]) -> None:
    """A file of one row, always with the same time of change."""
    plain, rows = path.with_suffix("") if path.suffix == ".gz" else path, Dataset.from_list([row])
    path.parent.mkdir(parents=True, exist_ok=True)
    if plain.suffix == ".parquet":
        rows.to_parquet(plain)
    elif plain.suffix in (".jsonl", ".json"):
        rows.to_json(plain)
    else:
        rows.to_csv(plain, sep="\t" if plain.suffix == ".tsv" else ",", index=False)
    if path != plain:
        path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
    os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_written_again_with_the_same_size_and_time_is_read_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    for row in (ROW, OTHER, ROW):
        write(path, row)
        assert load_rows(str(path), "train", 0).to_list() == [row]


@pytest.mark.parametrize("card", [True, False])
def test_a_folder_written_again_under_the_same_card_is_read_again(tmp_path: Path, card: bool) -> None:
    folder = tmp_path / "prefs"
    for row in (ROW, OTHER, ROW):
        for split in ("train", "test"):
            write(folder / "data" / f"{split}.parquet", row)
        if card:
            (folder / "README.md").write_text(CARD.format("data/train.parquet"))
        for role in ("train", "eval"):
            assert load_rows(str(folder), role, 0).to_list() == [row]


def test_a_file_that_a_card_takes_from_elsewhere_is_read_again(tmp_path: Path) -> None:
    folder, far = tmp_path / "prefs", tmp_path / "far" / "pairs.parquet"
    write(folder / "data" / "test.parquet", ROW)
    (folder / "README.md").write_text(CARD.format(far))
    for row in (ROW, OTHER):
        write(far, row)
        assert load_rows(str(folder), "train", 0).to_list() == [row]


def test_what_is_made_of_rows_that_were_there_before_does_not_come_back(tmp_path: Path) -> None:
    for row in (ROW, OTHER):
        write(tmp_path / "pairs.csv", row)
        made = load_rows(str(tmp_path / "pairs.csv"), "train", 0).map(lambda each: {"made": each["chosen"]})
        assert made["made"][:] == [row["chosen"]]


def test_an_unchanged_file_is_read_from_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    write(path, ROW)
    (first,) = load_rows(str(path), "train", 0).cache_files
    before = os.stat(first["filename"]).st_mtime_ns
    time.sleep(0.02)
    (second,) = load_rows(str(path), "train", 0).cache_files
    assert first == second and os.stat(second["filename"]).st_mtime_ns == before
