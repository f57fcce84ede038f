from __future__ import annotations

import json
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.files import (
    read_text,
    remove_folder,
    replace_folder,
    whole_file,
    whole_files,
    whole_folder,
    write_json,
    write_problem,
    write_text,
)


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


def test_names_that_no_file_can_have_are_known_beforehand(tmp_path: Path) -> None:
    assert write_problem("") == "the name is empty"
    assert write_problem(tmp_path / ("n" * 300)) == "the name is too long"
    assert write_problem(tmp_path / ("n" * 250)) == "the name is too long"  # with what it is called meanwhile
    assert write_problem(tmp_path / ("n" * 200)) is None and write_problem(".") is None and write_problem("/") is None


def test_a_device_or_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "device or pipe" in str(write_problem(pipe)) and "device or pipe" in str(write_problem("/dev/null"))
    with pytest.raises(UserError, match=r"pipe can't be written: it is a device or pipe.*choose another name"):
        write_text(pipe, "x")
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_folder_named_by_a_tilde_is_that_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_folder("~/rows") as folder:  # libraries would take it for the home folder
        assert folder.is_absolute()
        (folder / "a").touch()
    assert (tmp_path / "~" / "rows" / "a").exists()


def test_texts_that_are_no_unicode_are_written_with_escapes(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"file": "caf\udce9"})
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"file": "caf\udce9"}


def test_a_file_that_a_user_named_is_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("\ufeffü\n".encode())
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    assert read_text(tmp_path / "a", "rules") == "ü\n"
    for name, message in (("b", "it is not UTF-8; save"), ("c", "rules: there is no file"), ("", "Is a directory")):
        with pytest.raises(UserError, match=message):
            read_text(tmp_path / name, "rules")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, in which nobody can make files")
def test_a_folder_that_refuses_files_even_of_root_is_known_beforehand() -> None:
    assert write_problem("/proc/none/a.json") == "/proc is no folder that can be written to"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is flushed and renamed, in their order."""
    seen: list[str] = []
    replace = os.replace

    def note_flush(descriptor: int) -> None:
        seen.append(f"flush {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")

    def note_rename(source: Any, target: Any) -> None:
        replace(source, target)
        seen.append(f"rename {Path(target).name}")

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_rename)
    return seen


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc, which names open files")
def test_content_is_flushed_before_the_rename_and_the_folder_after_it(tmp_path: Path, calls: list[str]) -> None:
    with whole_file(tmp_path / "a.json") as unfinished:
        unfinished.write_text("{}")
    assert calls == [f"flush {unfinished.name}", "rename a.json", f"flush {tmp_path.name}"]
    calls.clear()
    with whole_folder(tmp_path / "model") as unfinished:
        (unfinished / "sub").mkdir()
        (unfinished / "sub" / "b.bin").touch()
    assert sorted(calls[:3]) == [f"flush {unfinished.name}", "flush b.bin", "flush sub"]
    assert calls[3:] == ["rename model", f"flush {tmp_path.name}"]
    calls.clear()
    with whole_files(tmp_path / "model") as unfinished:
        (unfinished / "c.bin").touch()
    assert sorted(calls[:2]) == ["flush .unfinished", "flush c.bin"] and calls[2:] == ["rename c.bin", "flush model"]


def test_a_folder_with_some_new_files_and_some_old_ones_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between any two of its renames."""
    names, replace = ("config.json", "model-1.safetensors", "model-2.safetensors"), os.replace

    def save(content: str) -> None:
        with whole_files(tmp_path) as unfinished:
            for name in names:
                (unfinished / name).write_text(content)

    save("old")
    for renames in range(len(names)):
        left = iter(range(renames))

        def until_killed(source: Any, target: Any, left: Any = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            replace(source, target)

        monkeypatch.setattr(os, "replace", until_killed)
        with pytest.raises(KeyboardInterrupt):
            save("new")
        assert not (tmp_path / "config.json").exists()
    monkeypatch.setattr(os, "replace", replace)
    save("new")
    assert {(tmp_path / name).read_text() for name in names} == {"new"}


def test_a_folder_that_is_half_deleted_has_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("checkpoint-1", "checkpoint-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.bin").touch()
    with monkeypatch.context() as patch:  # killed before it deletes
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        remove_folder(tmp_path / "checkpoint-1")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left[1:] == ["checkpoint-2"] and left[0].startswith(".checkpoint-1.removed")
    remove_folder(tmp_path / "checkpoint-2")
    assert list(tmp_path.iterdir()) == [], "and it is deleted with the next one"


def test_a_folder_that_cant_take_a_name_leaves_it_to_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "missing", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
