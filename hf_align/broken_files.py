"""Files that are cut off or of another format than their name says, seen without loading them.

A copy or download that was broken off leaves them; libraries then fail without naming the file.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

PATTERNS = ("*.safetensors", "*.pt", "*.pth", "*.json")
"""Names of the files that can be looked at."""


def file_problem(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a file of weights, a file that `torch.save` wrote or a JSON file, or None.

    Only headers and sizes are read, and JSON. Files with other names aren't looked at.

    Example:
        >>> from pathlib import Path
        >>> from hf_align.broken_files import file_problem
        >>> _ = Path("config.json").write_text('{"hidden_size": 5')
        >>> file_problem("config.json")
        "it is cut off or no JSON (line 1: Expecting ',' delimiter)"
    """
    path = Path(path)
    if not path.is_file():
        return "it is missing"
    if path.suffix == ".safetensors":
        return _safetensors_problem(path)
    if path.suffix in (".pt", ".pth"):
        return _torch_problem(path)
    if path.suffix == ".json":
        return _json_problem(path)
    return None


def broken_file(folder: str | os.PathLike[str], *patterns: str) -> tuple[Path, str] | None:
    """The first broken file of a folder and its subfolders and what is wrong with it, or None.

    Args:
        folder: The folder.
        *patterns: Names of the files to look at. Default: all that can be.
    """
    for pattern in patterns or PATTERNS:
        for path in sorted(Path(folder).rglob(pattern)):
            if (problem := file_problem(path)) is not None:
                return path, problem
    return None


def _safetensors_problem(path: Path) -> str | None:
    """Compare the size that the header tells with the file's: 8 bytes, a JSON header of that many, the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or 8 + length > size:
            return f"it is cut off or no safetensors file ({size} bytes)"
        try:
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "it is no safetensors file"
    whole = 8 + length + end
    if size < whole:
        return f"it is cut off: it has {size} of {whole} bytes"
    return None if size == whole else "it is no safetensors file"


def _torch_problem(path: Path) -> str | None:
    """A zip archive's table of contents is at its end."""
    try:
        with zipfile.ZipFile(path) as archive:
            archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError):
        return "it is cut off, or not of torch.save"
    return None


def _json_problem(path: Path) -> str | None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return "it is no text in UTF-8"
    except json.JSONDecodeError as error:
        return f"it is cut off or no JSON (line {error.lineno}: {error.msg})"
    return None
