"""Files that were cut off are seen by their headers."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_align.broken_files import broken_file, file_problem

FILES = ("a.safetensors", "b.pt", "c.pth", "d.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"x": torch.zeros(30, 3), "y": torch.zeros(5)}, tmp_path / "a.safetensors", {"format": "pt"})
    torch.save({"x": torch.zeros(9)}, tmp_path / "b.pt")
    torch.save([1, 2], tmp_path / "c.pth")
    (tmp_path / "d.json").write_text('{"a": [1, 2]}')
    (tmp_path / "e.txt").write_text("{")
    return tmp_path


def test_whole_files_have_no_problem(folder: Path) -> None:
    assert broken_file(folder) is None
    save_file({}, folder / "none.safetensors")
    assert broken_file(folder) is None
    assert file_problem(folder / "missing.pt") == "it is missing"


@pytest.mark.parametrize("name", FILES)
def test_files_cut_off_anywhere(name: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    for size in {0, 5, 9, len(content) // 3, len(content) // 2, len(content) - 1}:
        (folder / name).write_bytes(content[:size])
        found = broken_file(folder)
        assert found is not None and found[0].name == name and "cut off" in found[1], size


def test_the_sizes_of_a_file_that_was_cut_off(folder: Path) -> None:
    path = folder / "a.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    assert file_problem(path) == f"it is cut off: it has {size - 7} of {size} bytes"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.safetensors", b"\x02\0\0\0\0\0\0\0[]", "it is no safetensors file"),
        ("a.safetensors", b"<!DOCTYPE html><html>not found</html>", "it is cut off or no safetensors file (37 bytes)"),
        ("b.pt", pickle.dumps({"a": 1}), "it is cut off, or not of torch.save"),
        ("d.json", b"\xff\xfe", "it is no text in UTF-8"),
        ("d.json", b'{"a": 1', "it is cut off or no JSON (line 1: Expecting ',' delimiter)"),
    ],
)
def test_files_of_another_format(name: str, content: bytes, problem: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    assert file_problem(folder / name) == problem
    assert broken_file(folder, "*.txt") is None
