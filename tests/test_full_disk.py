"""A full disk is recognised in the words of each library, and told with file and sizes."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from hf_align.errors import UserError
from hf_align.files import whole_file, whole_files, whole_folder
from hf_align.full_disk import DiskFull, code_of, full_disk_error, full_disk_told
from tests.file_limit import files_no_larger_than

ROW = torch.zeros(25_000)  # 100 kB


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errno.EDQUOT),
        (OSError(errno.EFBIG, "File too large"), errno.EFBIG),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (Exception("Disk quota exceeded (os error 122)"), errno.EDQUOT),
        (sqlite3.OperationalError("database or disk is full"), errno.ENOSPC),
        (OSError(errno.EACCES, "Permission denied"), None),
        (ValueError("os error 280"), None),
    ],
)
def test_the_system_error_behind_an_exception_and_its_causes(error: Exception, code: int | None) -> None:
    assert code_of(error) == code
    with pytest.raises(RuntimeError) as outer:
        raise RuntimeError("saving failed") from error
    assert code_of(outer.value) == code


def write(file: Path, how: str) -> None:
    if how == "torch":
        torch.save({"row": ROW}, file)
    elif how == "torch at its end":
        torch.save({"row": ROW[:10].clone()}, file)
    elif how == "safetensors":
        save_file({"row": ROW}, file)
    else:
        file.write_bytes(bytes(100_000))


@pytest.mark.parametrize("how", ["python", "safetensors", "torch", "torch at its end"])
def test_each_library_is_told_with_its_file_and_what_is_missing(how: str, tmp_path: Path) -> None:
    limit = 500 if how == "torch at its end" else 40_000
    path = tmp_path / "model" / "weights.bin"
    with files_no_larger_than(limit), pytest.raises(DiskFull) as caught, whole_file(path, needed=100_000) as file:
        write(file, how)
    error = caught.value
    assert (error.path, error.code, error.errno) == (path, errno.EFBIG, errno.EFBIG)
    assert str(error) == (
        f"{path} can't be written: it is larger than files may be here; the limit of file size (ulimit -f) is "
        f"{'39 KiB' if limit > 500 else '500 bytes'}. Raise it, for instance by ulimit -f unlimited."
    )
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("whole", [whole_folder, whole_files])
@pytest.mark.parametrize(("how", "name"), [("python", "b.bin"), ("safetensors", "*.safetensors"), ("torch", "b.bin")])
def test_of_a_folder_the_file_is_named(whole: Any, how: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"

    def save() -> None:
        with whole(folder) as unfinished:
            (unfinished / "a.bin").write_bytes(bytes(10_000))
            write(unfinished / "b.bin", how)

    with files_no_larger_than(40_000), pytest.raises(DiskFull) as caught:
        save()
    assert caught.value.path == folder / name


def test_what_is_missing_counts_what_was_written_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=200))

    def fill(folder: Path) -> None:
        with whole_folder(folder, needed=lambda: 5000) as unfinished:
            (unfinished / "a.bin").write_bytes(bytes(1000))
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match=r"a.bin can't be written: the disk is full; 5 KiB are needed and 1 KiB were "):
        fill(tmp_path / "model")
    with (
        pytest.raises(DiskFull, match=f"^{tmp_path}/run/model/a.bin can't be .* 9 KiB are needed and 200 bytes were"),
        full_disk_told(tmp_path / "aside", shown=tmp_path / "run", needed=9000),  # what is around it knows better
    ):
        fill(tmp_path / "aside" / "model")


def test_without_a_limit_of_file_size_it_is_the_file_system_s(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as caught, whole_file(tmp_path / "a.bin", needed=5 << 30):
        raise OSError(errno.EFBIG, "File too large")
    assert str(caught.value).endswith(
        "files may be here; it is the file system's limit. Choose a folder on another one."
    )


def test_a_quota_doesnt_tell_what_is_left(tmp_path: Path) -> None:
    with pytest.raises(DiskFull) as caught, whole_file(tmp_path / "a.json", needed=2000):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert "a.json can't be written: the disk quota is used up; 2 KiB are needed. Free some" in str(caught.value)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), full_disk_told(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")
    (tmp_path / "a.pt").write_bytes(b"half")
    with pytest.raises(RuntimeError, match="basic_ios"), full_disk_told(tmp_path / "a.pt"):
        raise RuntimeError("basic_ios::clear: iostream error")  # and a block more has room: the disk isn't full


def test_a_sentence_that_says_what_failed_is_kept() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "out.json")
    assert "out.json can't be written: the disk is full; more than the" in str(full_disk_error(full))
    with pytest.raises(UserError) as told:
        raise UserError("--json: out.json can't be written") from full
    assert full_disk_error(told.value) is told.value
    assert full_disk_error(UserError("beta is -1")) is None
