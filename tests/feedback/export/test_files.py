"""An export on disk: read back by `datasets` and by the trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from hf_align.collators import find_bad_rows
from hf_align.data.sources import load_rows
from hf_align.errors import UserError
from hf_align.feedback.export import export_preferences, save_export
from hf_align.trainers import RewardConfig, RewardTrainer
from tests.feedback.export.filled import filled


def test_a_folder_loads_by_its_card_with_its_splits(tmp_path: Path):
    export = export_preferences(filled(15), method="majority", test_share=0.4)
    save_export(export, tmp_path / "prefs")
    loaded = load_dataset(str(tmp_path / "prefs"), cache_dir=str(tmp_path / "cache"))
    assert {name: rows.to_list() for name, rows in loaded.items()} == {
        name: rows.to_list() for name, rows in export.splits.items()
    }
    assert load_rows(str(tmp_path / "prefs"), "eval", 0).to_list() == export.splits["test"].to_list()
    again = export_preferences(filled(15), method="majority", test_share=0.4)
    save_export(again, tmp_path / "prefs", overwrite=True)  # rows of the same shape, of another store
    assert load_rows(str(tmp_path / "prefs"), "eval", 0).to_list() == again.splits["test"].to_list()


def test_the_head_of_a_card_names_licence_size_and_the_files_of_the_splits(tmp_path: Path):
    export = export_preferences(filled(15), method="majority", test_share=0.4)
    save_export(export, tmp_path / "prefs", license="cc-by-4.0")
    head = DatasetCard.load(tmp_path / "prefs" / "README.md").data.to_dict()
    assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
    files = head["configs"][0]["data_files"]
    assert [split["split"] for split in files] == ["train", "test"]
    assert all((tmp_path / "prefs" / split["path"]).exists() for split in files)


@pytest.mark.parametrize("name", ["prefs.jsonl", "prefs.parquet"])
def test_a_file_holds_the_same_rows(name: str, tmp_path: Path):
    export = export_preferences(filled(6), method="majority")
    save_export(export, tmp_path / name)
    read = load_rows(str(tmp_path / name), "train", 0)
    assert list(read) == export.rows.to_list()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_card_says_what_is_in_the_data(tmp_path: Path):
    export = export_preferences(filled(6), method="majority", soft_labels=True, ties="keep")
    save_export(export, tmp_path / "prefs")
    card = (tmp_path / "prefs" / "README.md").read_text(encoding="utf-8")
    assert "6 tasks on 6 prompts, with\n18 answers by 3 people" in card
    for column in export.rows.column_names:
        assert f"`{column}`" in card, column
    assert "| north | 2 | 12 | 1.000 | 1.000 |" in card and "| strong | 6 | 0.833 |" in card
    assert "license: unknown" in card and "No licence has been chosen" in card
    assert "`margin`" not in card and "`votes`" not in card and "{{" not in card and "None" not in card
    assert not any(name in card for name in ("Anna", "Ben", "Cleo"))


def test_a_destination_is_refused_before_and_replaced_only_on_request(tmp_path: Path):
    export = export_preferences(filled(3), method="majority")
    target = tmp_path / "prefs"
    save_export(export, target)
    with pytest.raises(UserError, match="exists; add --overwrite"):
        save_export(export, target)
    save_export(export, target, license="mit", overwrite=True)
    assert "license: mit" in (target / "README.md").read_text(encoding="utf-8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files than a data set"):
        save_export(export, tmp_path / "other", overwrite=True)
    split = export_preferences(filled(15), method="majority", test_share=0.4)
    with pytest.raises(UserError, match="a split into train and test takes a folder"):
        save_export(split, tmp_path / "prefs.jsonl")
    assert json.loads((target / ".dataset_card.json").read_text())["facts"]["figures"]["rows"] == 2


@pytest.mark.parametrize("options", [{}, {"soft_labels": True, "ties": "keep"}])
def test_the_reward_trainer_trains_on_what_was_saved(options: Any, tmp_path: Path, tiny_model_dir: str):
    save_export(export_preferences(filled(6), method="majority", **options), tmp_path / "prefs")
    rows = load_rows(str(tmp_path / "prefs"), "train", 0)
    findings = find_bad_rows(rows)
    assert not findings.bad and not findings.doubtful
    args = RewardConfig(
        str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=2, report_to="none", use_cpu=True
    )
    trainer = RewardTrainer(tiny_model_dir, args=args, train_dataset=rows)
    trainer.train()
    assert trainer.state.global_step == 2
