"""Files and folders that appear whole or not at all.

Everything is written under a temporary name beside its destination, flushed to disk and then renamed: after a crash or
on a full disk a reader sees the old content or the new, never a part. A failed write leaves nothing behind.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished"
"""Part of the temporary names of files and folders being written; code that looks for results skips such names."""

CONFIG, ADAPTER_CONFIG, ADAPTER_WEIGHTS = "config.json", "adapter_config.json", "adapter_model.safetensors"
REWARD_CONFIG, REWARD_HEAD = "reward_config.json", "reward_head.safetensors"
REWARD_CODE = "modeling_hf_align_reward.py"
REWARD_FILES = (REWARD_CONFIG, REWARD_HEAD, REWARD_CODE)
VALUE_HEAD, VALUE_ADAPTER_FOLDER, VALUE_MODEL_FOLDER = "value_head.safetensors", "value", "value_model"
BASE_FINGERPRINT, MOVED_REFERENCE = "base_fingerprint.json", "reference.safetensors"
ENSEMBLE, AGGREGATOR = "ensemble.json", "aggregator.safetensors"
"""File names in a saved model's folder, used by loading, cards and pushes."""
DATA_FACTS = ".dataset_card.json"
"""Facts of an exported data set's card, hidden so that no reader of a folder takes them for rows."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name to write a file under; it replaces `path` unless the block fails.

    Args:
        path: The file; missing parent folders are created.

    Yields:
        A path in the same folder with the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}{UNFINISHED}-{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        _flush(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder to write into; it replaces `path` unless the block fails.

    Args:
        path: The folder; an existing one is replaced with all its content.

    Yields:
        A folder beside it.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}{UNFINISHED}-{os.getpid()}")
    replaced = path.with_name(f".{path.name}.replaced-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _flush_all(unfinished)
        if path.exists():  # move aside, not delete: a crash in between loses nothing
            os.replace(path, replaced)
        os.replace(unfinished, path)
    finally:
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def whole_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder to write into; its files then move into `folder` one by one.

    Args:
        folder: The destination. Files with other names stay; an older file stays until the new one is whole.

    Yields:
        A folder in it.
    """
    unfinished = Path(folder, UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _flush_all(unfinished)
        for path in unfinished.iterdir():
            if path.is_dir():
                shutil.rmtree(Path(folder, path.name), ignore_errors=True)
            os.replace(path, Path(folder, path.name))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_problem(path: str | os.PathLike[str]) -> str | None:
    """Why no file or folder can be written under a name, or None: the nearest folder above it that exists is tried."""
    folder = next(each for each in Path(path).absolute().parents if os.path.exists(each))
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError:
        return f"{folder} is no folder that can be written to"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file in UTF-8."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a whole JSON file; NaN and infinities, which JSON lacks, become null."""
    write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(content: Any) -> Any:
    """The content with null in place of NaN and infinities."""
    if isinstance(content, Mapping):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _flush_all(folder: Path) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        _flush(path)


def _flush(path: Path) -> None:
    """Flush a file's content to disk before the rename that declares it whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
