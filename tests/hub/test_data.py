"""Push of exported data sets to the stand-in Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import load_dataset

from hf_align.cli.main import main
from hf_align.data.sources import load_rows
from hf_align.errors import UserError
from hf_align.feedback.export import export_preferences, save_export
from hf_align.hub import push_dataset
from tests.feedback.export.filled import filled
from tests.hub.conftest import read_files
from tests.hub.stand_in import StandIn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_export(export_preferences(filled(3), method="majority"), tmp_path / "prefs")
    return tmp_path / "prefs"


def test_rows_and_card_are_pushed_and_nothing_else(hub: StandIn, folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "notes.txt").write_text("mine")
    (folder / "LICENSE").write_text("CC BY 4.0")
    before = read_files(folder)
    assert main(["push", str(folder), "mine", "--private", "--license", "cc-by-4.0", "--message", "First rows"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"pushed to {hub.url}/datasets/anna/mine"
    repository = hub.repositories["anna/mine"]
    assert (repository.kind, repository.private, repository.messages) == ("dataset", True, ["First rows"])
    [rows] = (folder / "data").iterdir()
    assert set(repository.files) == {".gitattributes", "LICENSE", "README.md", f"data/{rows.name}"}
    card = repository.files["README.md"].decode()
    assert "license: cc-by-4.0" in card and 'load_dataset("anna/mine", split="train")' in card
    assert read_files(folder) == before


def test_what_was_pushed_loads_by_its_card(hub: StandIn, folder: Path, tmp_path: Path):
    push_dataset(folder, "mine")
    pushed = {name: data for name, data in hub.repositories["anna/mine"].files.items() if name != ".gitattributes"}
    for name, data in pushed.items():
        (tmp_path / "loaded" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "loaded" / name).write_bytes(data)
    rows = load_dataset(str(tmp_path / "loaded"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == 2


def test_a_later_push_replaces_the_rows(hub: StandIn, folder: Path):
    push_dataset(folder, "mine")
    first = set(hub.repositories["anna/mine"].files)
    save_export(export_preferences(filled(6), method="majority"), folder, overwrite=True)
    push_dataset(folder, "mine")
    second = set(hub.repositories["anna/mine"].files)
    assert len(first) == len(second) == 3 and len(first & second) == 2


def test_an_edited_card_is_pushed_as_it_stands(hub: StandIn, folder: Path):
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nAnnotators were paid.\n")
    with pytest.raises(UserError, match="was edited and is pushed as it stands; set license in its head instead"):
        push_dataset(folder, "mine", license="mit")
    push_dataset(folder, "mine")
    assert hub.repositories["anna/mine"].files["README.md"].decode().endswith("Annotators were paid.\n")


def test_a_failure_is_one_sentence_and_leaves_the_repository_unchanged(
    hub: StandIn, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    hub.fail(r"POST .*/commit/", status=500)
    assert main(["push", str(folder), "mine"]) == 2
    assert "the Hub answered 500" in capsys.readouterr().err
    assert hub.repositories["anna/mine"].messages == []
    for arguments, message in (
        (["--merge"], "--merge is for models, and"),
        (["--base-model", "team/base"], "--base-model is for models, and"),
    ):
        assert main(["push", str(folder), "mine", *arguments]) == 2
        assert message in capsys.readouterr().err
    [rows] = (folder / "data").iterdir()
    rows.rename(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="is missing; export the data set again"):
        push_dataset(folder, "mine")
    rows.symlink_to(tmp_path / "rows.parquet")
    with pytest.raises(UserError, match="is a link to a file outside"):
        push_dataset(folder, "mine")
    with pytest.raises(UserError, match="is no data set that hf-align export wrote"):
        push_dataset(tmp_path, "mine")


def test_text_files_of_the_hub_are_read_as_they_stand(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    row = {"prompt": "2024-01-31", "chosen": "007", "rejected": "None"}
    hub.add("team/gems", {"train_prefs.jsonl": json.dumps(row).encode(), "README.md": CARD.encode()})
    for name in ("team/gems", "team/gems:train_prefs"):
        assert load_rows(name, "train", 0).to_list() == [row]
    hub.fail(".*", status=500)
    assert load_rows("team/gems", "train", 0).to_list() == [row]  # from the files that were downloaded


CARD = """---
configs:
- config_name: default
  data_files: [{split: train_prefs, path: train_prefs.jsonl}]
---
"""
