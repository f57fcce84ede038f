"""Files and folders that appear whole or not at all.

Everything is written under a temporary name beside its destination, flushed to the disk and renamed; then the folder is
flushed, which holds the new name. After a crash, a power cut or on a full disk a reader sees the old content or the
new, never a part. A failed write leaves nothing behind. On a full disk the error is a `DiskFull`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.full_disk import full_disk_told

UNFINISHED = ".unfinished"
"""Part of the temporary names of files and folders being written; code that looks for results skips such names."""
REMOVED = ".removed"
"""Part of the names of folders that are being deleted: what is left of one after a kill looks like nothing else."""

CONFIG, ADAPTER_CONFIG, ADAPTER_WEIGHTS = "config.json", "adapter_config.json", "adapter_model.safetensors"
REWARD_CONFIG, REWARD_HEAD = "reward_config.json", "reward_head.safetensors"
REWARD_CODE = "modeling_hf_align_reward.py"
REWARD_FILES = (REWARD_CONFIG, REWARD_HEAD, REWARD_CODE)
VALUE_HEAD, VALUE_ADAPTER_FOLDER, VALUE_MODEL_FOLDER = "value_head.safetensors", "value", "value_model"
BASE_FINGERPRINT, MOVED_REFERENCE = "base_fingerprint.json", "reference.safetensors"
ENSEMBLE, AGGREGATOR = "ensemble.json", "aggregator.safetensors"
"""File names in a saved model's folder, used by loading, cards and pushes."""
MARKS = (CONFIG, ADAPTER_CONFIG, ENSEMBLE)
"""Files by which a folder is taken for a saved model."""
DATA_FACTS = ".dataset_card.json"
"""Facts of an exported data set's card, hidden so that no reader of a folder takes them for rows."""


@contextmanager
def whole_file(path: str | os.PathLike[str], *, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary name to write a file under; it replaces `path` unless the block fails.

    Args:
        path: The file; missing parent folders are created.
        needed: Its size in bytes, for the error on a full disk. Default: that of the file it replaces.

    Yields:
        A path in the same folder with the same suffix.

    Raises:
        DiskFull: The disk has no room for it.
        UserError: The name is that of a device or pipe.
    """
    path = Path(path)
    if _is_special(path):
        raise UserError(f"{path} can't be written: {_SPECIAL}; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        with full_disk_told(unfinished, shown=path, needed=needed):
            yield unfinished
            flush(unfinished)
            os.replace(unfinished, path)
        flush_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str], *, needed: Callable[[], int] | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder to write into; it replaces `path` unless the block fails.

    Args:
        path: The folder; an existing one is replaced with all its content.
        needed: Size in bytes, for the error on a full disk. Default: that of what it replaces.

    Yields:
        A folder beside it.

    Raises:
        DiskFull: The disk has no room for it.
    """
    path = Path(path)
    # Absolute, since libraries take a relative "~" for the home folder.
    unfinished = path.absolute().with_name(f".{path.name}{UNFINISHED}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with full_disk_told(unfinished, shown=path, needed=needed):
            yield unfinished
            flush_all(unfinished)
            replace_folder(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def whole_files(folder: str | os.PathLike[str], *, needed: Callable[[], int] | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder to write into; its files then move into `folder` one by one.

    A file by which the folder is taken for a model moves last, and an old one of them is removed first: a folder with
    some of the new files and some of the old never looks like a model.

    Args:
        folder: The destination. Files with other names stay; an older file stays until the new ones are whole.
        needed: Size of the files in bytes, for the error on a full disk. Default: that of all in `folder`.

    Yields:
        A folder in it.

    Raises:
        DiskFull: The disk has no room for them.
    """
    folder = Path(folder)
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with full_disk_told(unfinished, shown=folder, needed=needed):
            yield unfinished
            flush_all(unfinished)
            paths = sorted(unfinished.iterdir(), key=lambda path: (path.name in MARKS, path.name))
            for mark in MARKS:
                if (unfinished / mark).exists():
                    (folder / mark).unlink(missing_ok=True)
            for path in paths:
                if path.is_dir():
                    shutil.rmtree(folder / path.name, ignore_errors=True)
                os.replace(path, folder / path.name)
        flush_folder(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Give a whole folder another name, at which an old one is moved aside first and then deleted."""
    aside = path.with_name(f".{path.name}.replaced-{os.getpid()}")
    if path.exists():  # move aside, not delete: a crash in between loses nothing
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
    try:
        os.replace(new, path)
    except OSError:
        if aside.exists():
            os.replace(aside, path)
        raise
    flush_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: str | os.PathLike[str]) -> None:
    """Delete a folder; killed meanwhile, what is left of it has another name.

    Such leftovers of earlier ones beside it are deleted, too.
    """
    path = Path(path)
    for leftover in path.parent.glob(f".*{REMOVED}-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if path.exists():
        aside = path.with_name(f".{path.name}{REMOVED}-{os.getpid()}")
        os.replace(path, aside)
        shutil.rmtree(aside, ignore_errors=True)


def write_problem(path: str | os.PathLike[str]) -> str | None:
    """Why no file or folder can be written under a name, or None: the nearest folder above it that exists is tried."""
    if not str(path):
        return "the name is empty"
    if _is_special(path):
        return _SPECIAL
    path = Path(path).absolute()
    folder = next(each for each in (*path.parents, Path(path.anchor)) if os.path.lexists(each))
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return f"{folder} is no folder that can be written to"
    try:
        os.lstat(_unfinished(path) if path.name else path)
    except OSError as error:
        return "the name is too long" if error.errno == errno.ENAMETOOLONG else None
    except ValueError:  # a NUL byte, half a character
        return "the name holds a character that no name can hold"
    return None


def check_file(path: str, name: str) -> None:
    """Refuse a file that can't be written.

    Args:
        path: The file.
        name: The option that it was given to, for the message.

    Raises:
        UserError: It is a folder, a device, or nowhere that can be written to.
    """
    if problem := "it is a folder" if path and os.path.isdir(path) else write_problem(path):
        raise UserError(f"{name}: {path or 'a file without a name'} can't be written: {problem}")


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.stem}{UNFINISHED}-{os.getpid()}{path.suffix}")


_SPECIAL = "it is a device or pipe, which a file would replace"


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether there is something that is neither a file nor a folder, such as /dev/null."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def read_text(path: str | os.PathLike[str], name: str) -> str:
    """The text of a file that a user named.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.
        name: The option that it was given to, for messages.

    Raises:
        UserError: There is no such file, or it can't be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{name}: there is no file {path}") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: {path} can't be read: it is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{name}: {path} can't be read: {error.strerror}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file in UTF-8."""
    content = text.encode(errors="backslashreplace")  # names of files may hold bytes that are no text
    with whole_file(path, needed=len(content)) as unfinished:
        unfinished.write_bytes(content)


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


def flush_all(folder: Path) -> None:
    """Flush a folder with all that it holds to the disk, before the rename that declares it whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            flush(path)
        elif path.is_dir():
            flush_folder(path)
    flush_folder(folder)


def flush(path: Path) -> None:
    """Flush a file's content to the disk."""
    _sync(path, os.O_RDONLY)


def flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the system can: a rename isn't safe from a power cut before."""
    if (directory := getattr(os, "O_DIRECTORY", None)) is None:  # Windows can't
        return
    try:
        _sync(folder, os.O_RDONLY | directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):  # file systems that can't, either
            raise


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:  # delayed writes fail here, without a name
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
