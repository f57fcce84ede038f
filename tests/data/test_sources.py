import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from hf_align.data.sources import (
    EMBEDDED,
    EMBEDDED_PAIRS,
    EMBEDDED_RANKINGS,
    HELD_OUT,
    check_split,
    load_each,
    load_rows,
    load_stream,
)
from hf_align.errors import UserError

ROW = {"prompt": "Say hi.", "chosen": "Hi!", "rejected": "No."}


def test_the_embedded_ratings() -> None:
    train, held_out = load_rows(EMBEDDED, "train", 0), load_rows(EMBEDDED, "eval", 0)
    assert (len(train), len(held_out)) == (EMBEDDED_PAIRS["train"], EMBEDDED_PAIRS["eval"])
    assert {"prompt", "chosen", "rejected", "margin"} <= set(train.column_names)
    texts = [{chosen[0]["content"] for chosen in part["chosen"]} for part in (train, held_out)]
    assert texts[0].isdisjoint(texts[1])


def test_the_embedded_ratings_as_prompts_and_as_demonstrations() -> None:
    prompts, held_out = load_rows(EMBEDDED, "train", 0, "prompts"), load_rows(EMBEDDED, "eval", 0, "prompts")
    assert (len(prompts), len(held_out)) == (EMBEDDED_PAIRS["train"], EMBEDDED_PAIRS["eval"])
    assert set(prompts.column_names) == {"prompt", "domain", "opening"}
    assert {opening.lower() for opening in prompts["opening"]}.isdisjoint(
        opening.lower() for opening in held_out["opening"]
    )
    shown, pairs = load_rows(EMBEDDED, "eval", 0, "demonstrations"), load_rows(EMBEDDED, "eval", 0)
    assert shown.column_names == ["prompt", "completion"]
    assert shown["completion"][:] == pairs["chosen"][:]


def test_the_embedded_ratings_as_rankings_of_as_many_sentences() -> None:
    train, held_out = load_rows(EMBEDDED_RANKINGS, "train", 0), load_rows(EMBEDDED_RANKINGS, "eval", 0)
    assert (len(train), len(held_out)) == (EMBEDDED_PAIRS["train"] / 2, EMBEDDED_PAIRS["eval"] / 2)
    texts = [{each[0]["content"] for row in part["responses"] for each in row} for part in (train, held_out)]
    assert [len(part) for part in texts] == [2 * EMBEDDED_PAIRS["train"], 2 * EMBEDDED_PAIRS["eval"]]
    assert texts[0].isdisjoint(texts[1])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    if suffix == ".jsonl":
        path.write_text(json.dumps(ROW) + "\n")
    elif suffix == ".parquet":
        Dataset.from_list([ROW]).to_parquet(path)
    else:
        Dataset.from_list([ROW]).to_csv(path)
    assert load_rows(str(path), "train", 0).to_list() == [ROW]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_answers_of_a_table_are_texts_as_they_stand_and_ratings_are_numbers(tmp_path: Path, suffix: str) -> None:
    lines = ["prompt,response,rating,seen", "1+1?,2.0,5,", "1+2?,007,,", "3-2?,1,3,", "4-1?,,4,"]
    (tmp_path / f"sums{suffix}").write_text("\n".join(lines).replace(",", "\t" if suffix == ".tsv" else ","))
    rows = load_rows(str(tmp_path / f"sums{suffix}"), "train", 0)
    assert rows["response"][:] == ["2.0", "007", "1", None]
    assert rows["rating"][:] == [5, None, 3, 4] and rows["seen"][:] == [None] * 4


def test_the_type_of_a_column_is_that_of_all_its_values(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text("prompt,rating,stars,note\n" + "Hi.,1,2,\n" * 60_000 + "Hi.,none,2.5,x\n")
    rows = load_rows(str(path), "train", 0)
    assert rows[0] == {"prompt": "Hi.", "rating": 1, "stars": 2.0, "note": None}
    assert rows[-1] == {"prompt": "Hi.", "rating": "none", "stars": 2.5, "note": "x"}


def test_a_folder_with_files_of_several_kinds_is_refused_by_the_names_of_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (".cache.parquet", "a.csv"):
        Path(name).write_text("prompt,chosen,rejected\nSay hi.,Hi!,No.\n")
    assert load_rows(".", "train", 0).to_list() == [ROW]
    for name in ("b.csv", "c.jsonl"):
        Path(name).touch()
    Path("README.md").write_text("---\nlicense: mit\n---\nA card that names no files.\n")
    with pytest.raises(
        UserError, match=r"^train_dataset: the folder \. has files of several kinds \(a.csv, c.jsonl\);"
    ):
        load_rows(".", "train", 0)


def test_files_of_a_folder_that_no_split_has_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`datasets` passes over them, once the name of another file says that it is a split."""
    line = json.dumps(ROW) + "\n"
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(line)
    assert load_rows(str(tmp_path), "train", 0).to_list() == [ROW]
    assert not caplog.messages
    for name in ("more.jsonl", ".hidden.jsonl"):
        (tmp_path / name).write_text(line)
    assert load_rows(str(tmp_path), "train", 0).to_list() == [ROW]
    assert caplog.messages == ["train_dataset: of no split by name, and left out: more.jsonl."]
    caplog.clear()
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: a\n  data_files: test.jsonl\n---\n")
    assert load_rows(str(tmp_path), "train", 0).to_list() == [ROW]
    assert not caplog.messages


def test_a_split_of_data_without_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").touch()
    Dataset.from_list([ROW]).save_to_disk(tmp_path / "saved")
    for name in (str(tmp_path / "rows.csv"), str(tmp_path / "saved"), EMBEDDED):
        with pytest.raises(UserError, match=r"^split is test, but .* has no splits; leave it out"):
            check_split(name, "test")
        check_split(name, None)
    check_split(str(tmp_path), "test")
    check_split("nobody/data", "test")


def test_saved_folders_and_their_splits(tmp_path: Path) -> None:
    one, two = Dataset.from_list([ROW]), Dataset.from_list([ROW, ROW])
    one.save_to_disk(tmp_path / "one")
    DatasetDict({"train": two, "test": one}).save_to_disk(tmp_path / "both")
    assert len(load_rows(str(tmp_path / "one"), "eval", 0)) == 1
    assert len(load_rows(str(tmp_path / "both"), "train", 0)) == 2
    assert len(load_rows(str(tmp_path / "both"), "eval", 0)) == 1
    DatasetDict({"train": two, "other": one}).save_to_disk(tmp_path / "no-eval")
    with pytest.raises(UserError, match="no split validation or test or eval; it has train, other"):
        load_rows(str(tmp_path / "no-eval"), "eval", 0)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("embedded:rating", "ratings"),
        ("embedded:reviews", "ra"),
        ("embeded:ratings", "ratings"),
        ("embeded:ranking", "rankings"),
    ],
)
def test_embedded_data_that_there_is_not(name: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"train_dataset: there is no {name}; did you mean embedded:{meant}"):
        load_rows(name, "train", 0)


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"eval_dataset: there is no file nowhere\.csv"):
        load_rows("nowhere.csv", "eval", 0)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a"\nnot json\n')
    with pytest.raises(UserError, match=r"train_dataset: .*broken\.jsonl, line 1 is not a JSON object"):
        load_rows(str(broken), "train", 0)
    script = tmp_path / "rows.py"
    script.touch()
    with pytest.raises(UserError, match=r"train_dataset: .*rows\.py is not one of .jsonl, .json, .parq"):
        load_rows(str(script), "train", 0)
    with pytest.raises(UserError, match=r"train_dataset: nowhere\.py can't be read: Dataset scripts"):
        load_rows("nowhere.py", "train", 0)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="train_dataset: "):
        load_rows("nobody/no-such-data", "train", 0)


def test_each_file_of_a_folder_is_loaded_by_itself_but_for_those_of_other_splits(tmp_path: Path) -> None:
    for name, row in {"a": ROW, "b/c": {"text": "Hi."}, "validation": ROW, ".cache/x": ROW, "__made/x": ROW}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    (tmp_path / "README.md").write_text("Films.")
    (tmp_path / "dataset_infos.json").write_text('{"default": {"description": "Films."}}')
    Dataset.from_list([ROW]).save_to_disk(tmp_path / "b" / "saved")

    def load(name: str) -> Dataset:
        return load_rows(name, "train", 0)

    rows = load_each(str(tmp_path), "train_dataset", ("train",), load)
    assert {name: each.column_names for name, each in rows.items()} == {
        **{"a.jsonl": list(ROW), "b/c.jsonl": ["text"]},
        "b/saved": list(ROW),
    }
    several = [str(tmp_path / "a.jsonl"), str(tmp_path / "b" / "saved"), EMBEDDED_RANKINGS]
    assert list(load_each(several, "train_dataset", ("train",), load)) == ["a.jsonl", "saved", EMBEDDED_RANKINGS]
    with pytest.raises(UserError, match=r"train_dataset: two data sets are called a.jsonl"):
        load_each(several[:1] * 2, "train_dataset", ("train",), load)


def test_names_of_other_splits_are_words_of_their_own() -> None:
    assert all(
        map(HELD_OUT.search, ("test.jsonl", "data/val-00000.parquet", "films_eval.csv", "dev/1.json", "test2.csv"))
    )
    assert not any(
        map(HELD_OUT.search, ("contest.jsonl", "evaluations.csv", "device.json", "latest.jsonl", "value.csv"))
    )


@pytest.mark.parametrize(
    "kind", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.parquet", "folder", "saved", "splits"]
)
def test_a_stream_has_the_rows_that_loading_gives(kind: str, tmp_path: Path) -> None:
    rows = [{**ROW, "margin": number, "rejected": f"{number}"} for number in range(20)]
    data, path = Dataset.from_list(rows), tmp_path / kind
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if kind == "folder":
        path.mkdir()
        for part in range(2):
            (path / f"train-{part}.jsonl").write_text("".join(lines.splitlines(True)[10 * part : 10 * part + 10]))
    elif kind in ("saved", "splits"):
        (data if kind == "saved" else DatasetDict({"train": data})).save_to_disk(path)
    elif "jsonl" in kind:
        path.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else lines.encode())
    else:
        (data.to_csv if kind.endswith("csv") else data.to_parquet)(path)
    expected = load_rows(str(path), "train", 0).to_list()
    assert list(load_stream(str(path), "train_dataset", ("train",), seed=0, buffer=0)) == expected == rows
    shuffled = list(load_stream(str(path), "train_dataset", ("train",), seed=1, buffer=5))
    assert shuffled != rows and sorted(row["margin"] for row in shuffled) == list(range(20))


def test_what_is_wrong_later_in_a_stream_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + "{broken\n")
    stream = iter(load_stream(str(path), "train_dataset", ("train",), seed=0, buffer=0))
    assert next(stream) == ROW
    with pytest.raises(UserError, match=r"train_dataset: .*rows\.jsonl, line 2 is not a JSON object"):
        next(stream)
    with pytest.raises(UserError, match="train_dataset: there is no file"):
        load_stream(str(tmp_path / "none.jsonl"), "train_dataset", ("train",), seed=0, buffer=0)
    with pytest.raises(UserError, match="embedded:ratings lies in memory; leave streaming out"):
        load_stream(EMBEDDED, "train_dataset", ("train",), seed=0, buffer=0)
