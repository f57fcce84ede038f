"""Paths that the system refuses are told in a sentence; other errors are not."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hf_align.unusable_paths import REASONS, unusable_path_error


@pytest.mark.parametrize("code", REASONS)
def test_each_reason_names_the_path(code: int) -> None:
    told = unusable_path_error(OSError(code, "in the system's words", "out/x"))
    assert told is not None and str(told) == f"out/x can't be used: {REASONS[code]}"


def test_the_system_s_own_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path, words in (
        (tmp_path / ("n" * 300), "too long"),
        (tmp_path / "file" / "x", "is a file"),
        (tmp_path, "it is a folder"),
        (tmp_path / "loop", "circle"),
    ):
        with pytest.raises(OSError) as raised:
            path.read_text()
        told = unusable_path_error(raised.value)
        assert told is not None and str(path) in str(told) and words in str(told)


def test_pathlib_s_words_for_a_circle(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises((RuntimeError, OSError)) as raised:
        (tmp_path / "loop").resolve(strict=True)
    told = unusable_path_error(raised.value)
    assert told is not None and str(told) == f"{tmp_path / 'loop'} can't be used: {REASONS[errno.ELOOP]}"


def test_other_errors_stay_what_they_are() -> None:
    for error in (
        FileNotFoundError(errno.ENOENT, "", "x"),
        PermissionError(errno.EACCES, "no file"),
        ValueError(),
        RuntimeError("x"),
        OSError(),
    ):
        assert unusable_path_error(error) is None
