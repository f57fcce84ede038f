"""Files and folders that appear whole or not at all.

Whatever is written goes under a temporary name beside its place, is flushed to the disk and then renamed: a reader, a
crash or a full disk meets the old content or the new one, never a part. A write that fails leaves nothing behind.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished"
"""Part of the names under which files and folders are written; whoever looks for results leaves such names alone."""

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
REWARD_CONFIG, REWARD_HEAD = "reward_config.json", "reward_head.safetensors"
VALUE_HEAD, VALUE_ADAPTER_FOLDER, VALUE_MODEL_FOLDER = "value_head.safetensors", "value", "value_model"
"""Names in a saved model's folder, which loading, cards and pushes go by."""


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name to write a file under; afterwards it replaces `path`, unless the block failed.

    Args:
        path: The file; folders above it are made.

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
    """Give an empty temporary folder to write into; afterwards it replaces `path`, unless the block failed.

    Args:
        path: The folder; one that is there already, and its content, is replaced.

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
        if path.exists():  # moved aside, not deleted: a crash in between loses nothing
            os.replace(path, replaced)
        os.replace(unfinished, path)
    finally:
        for leftover in (unfinished, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def whole_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty temporary folder to write into; afterwards its content moves into `folder`, one by one.

    Args:
        folder: Gets the content. What it holds under other names stays, an older file until the new one is whole.

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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file in UTF-8."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a whole JSON file; NaN and infinities, which JSON doesn't know, become null."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _flush_all(folder: Path) -> None:
    for path in filter(Path.is_file, folder.rglob("*")):
        _flush(path)


def _flush(path: Path) -> None:
    """Have a file's content on the disk before its name says that it is whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
