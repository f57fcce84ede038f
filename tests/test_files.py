from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from hf_align.files import whole_file, whole_files, whole_folder, write_json, write_problem


def fail_in(writing: AbstractContextManager[Path], error: BaseException) -> None:
    """Write a part, then fail."""
    with writing as unfinished:
        (unfinished / "new.bin" if unfinished.is_dir() else unfinished).write_text("half")
        raise error


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "weights.safetensors"
    with whole_file(path) as unfinished:
        assert unfinished.suffix == ".safetensors"
        unfinished.write_text("old")
    with pytest.raises(OSError, match="full"):
        fail_in(whole_file(path), OSError("disk full"))
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with whole_folder(folder) as unfinished:
        (unfinished / "old.bin").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail_in(whole_folder(folder), KeyboardInterrupt())
    assert [path.name for path in folder.iterdir()] == ["old.bin"]
    with whole_folder(folder) as unfinished:
        (unfinished / "new.bin").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["new.bin"]
    assert list(tmp_path.iterdir()) == [folder]


def test_files_join_a_folder_whole_and_together(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "adapter").mkdir(parents=True)
    for name in ("mine.txt", "weights.bin", "adapter/old.bin"):
        (folder / name).write_text("old")
    with pytest.raises(OSError, match="full"):
        fail_in(whole_files(folder), OSError("disk full"))
    with whole_files(folder) as unfinished:
        (unfinished / "adapter").mkdir()
        (unfinished / "adapter" / "new.bin").write_text("new")
        (unfinished / "weights.bin").write_text("new")
        assert (folder / "weights.bin").read_text() == "old"
    actual = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert actual == {"mine.txt": "old", "weights.bin": "new", "adapter/new.bin": "new"}


def test_json_has_null_where_numbers_are_not_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "figures.json", {"a": float("nan"), "b": [1.5, float("inf")], "c": "ü"})
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")) == {
        "a": None,
        "b": [1.5, None],
        "c": "ü",
    }


def test_where_nothing_can_be_written_is_known_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert write_problem(tmp_path / "file") is None and write_problem(tmp_path / "new" / "deep" / "a.json") is None
    assert write_problem(tmp_path / "file" / "a.json") == f"{tmp_path / 'file'} is no folder that can be written to"
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "trying leaves nothing"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, in which nobody can make files")
def test_a_folder_that_refuses_files_even_of_root_is_known_beforehand() -> None:
    assert write_problem("/proc/none/a.json") == "/proc is no folder that can be written to"
