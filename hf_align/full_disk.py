"""A disk that takes no more: recognised in whatever a library raises, and told in one sentence.

Python, safetensors, tokenizers, pyarrow, SQLite and torch each have words of their own for it, most without the file.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_align.errors import UserError
from hf_align.numbers import shown_size

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "it is larger than files may be here",
}
"""Errors of the system that are one kind here, and their words."""
RAISE_LIMIT = "Raise it, for instance by ulimit -f unlimited."
_WORDS = {
    errno.ENOSPC: r"No space left on device|os error 28\b|(?:database or )?disk is full",
    errno.EDQUOT: r"[Dd]isk quota exceeded|os error 122\b",
    errno.EFBIG: r"File too large|os error 27\b",
}
_TORCH = re.compile(r"basic_ios::clear|PytorchStreamWriter failed|inline_container\.cc.*unexpected pos", re.DOTALL)
"""What torch says where a write failed, without the reason."""
_PROBE = 1 << 16
"""Bytes, a block of any file system, that are appended to find out why torch couldn't write."""
WEIGHTS = "*.safetensors"


class DiskFull(UserError, OSError):
    """A file can't be written, since the disk, a quota or the largest size of a file is used up.

    Args:
        path: The file or folder that was being written.
        code: The system's error, a key of `REASONS`.
        needed: Bytes of all that was to be written with it, if known.
        free: Bytes that there was room for, if known.

    Example:
        >>> import errno
        >>> from hf_align.full_disk import DiskFull
        >>> print(DiskFull("out/checkpoint-5/optimizer.pt", errno.ENOSPC, needed=3_000_000_000, free=1_200_000_000))
        out/checkpoint-5/optimizer.pt can't be written: the disk is full; 2.8 GiB are needed and 1.1 GiB were free: \
1.7 GiB are missing. Free some space, or choose another folder.
    """

    def __init__(
        self, path: str | os.PathLike[str], code: int, *, needed: int | None = None, free: int | None = None
    ) -> None:
        self.path, self.code, self.needed, self.free = Path(path), code, needed, free
        text, advice = f"{self.path} can't be written: {REASONS[code]}", "Free some space, or choose another folder."
        limit = _file_limit() if code == errno.EFBIG else None
        if code == errno.EFBIG and limit is None:
            text, advice = f"{text}; it is the file system's limit", "Choose a folder on another one."
        elif limit is not None:
            text, advice = f"{text}; the limit of file size (ulimit -f) is {shown_size(limit)}", RAISE_LIMIT
        elif needed is not None and free is not None and needed > free:
            known = f"{shown_size(needed)} are needed and {shown_size(free)} were free"
            text = f"{text}; {known}: {shown_size(needed - free)} are missing"
        elif needed is not None:
            text = f"{text}; {shown_size(needed)} are needed"
        elif free is not None:
            text = f"{text}; more than the {shown_size(free)} that were free are needed"
        super().__init__(f"{text}. {advice}")
        self.errno = code


def code_of(error: BaseException | None) -> int | None:
    """The system's error, a key of `REASONS`, that an exception or one of its causes tells of; else None."""
    for each in _causes(error):
        if isinstance(each, OSError) and each.errno in REASONS:
            return each.errno
        for code, words in _WORDS.items():
            if re.search(words, str(each)):
                return code
    return None


def full_disk_error(error: BaseException) -> UserError | None:
    """The sentence to tell where an exception or one of its causes is about a full disk, else None.

    The exception itself, if it is a `UserError` that says what couldn't be written.
    """
    named: str | None = None
    for each in _causes(error):
        if isinstance(each, DiskFull):
            return each
        if isinstance(each, OSError) and each.errno in REASONS and each.filename is not None:
            named = os.fsdecode(each.filename)
    code = code_of(error)
    if code is None:
        return None
    if isinstance(error, UserError):
        return error
    free = None if named is None or code != errno.ENOSPC else _free(Path(named))
    return DiskFull(named or "a file", code, free=free)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def full_disk_told(
    path: str | os.PathLike[str],
    *,
    shown: str | os.PathLike[str] | None = None,
    needed: Callable[[], int] | int | None = None,
) -> Iterator[None]:
    """Raise `DiskFull` with file and sizes for whatever a library raises on a full disk; other errors pass.

    It looks at what was written so far, so that has to be removed outside of it.

    Args:
        path: The file, or the folder of the files, written in the block.
        shown: What it will be called. Default: `path`.
        needed: Bytes that all of it takes. Default: the size of what `shown` holds now, if anything.

    Example:
        >>> from hf_align.full_disk import DiskFull, full_disk_told
        >>> try:
        ...     with full_disk_told("figures.json", needed=1000):
        ...         raise OSError(28, "No space left on device")
        ... except DiskFull as error:
        ...     print(error.path, error.needed)
        figures.json 1000
    """
    path, shown = Path(path), Path(path if shown is None else shown)
    try:
        yield
    except Exception as error:  # what libraries make of the system's error
        code = code_of(error)
        if code is None and _TORCH.search(str(error)):
            code = _why(_newest(path))
        if code is None:
            raise
        total = needed() if callable(needed) else needed
        if total is None and shown != path:
            total = _size(shown) or None
        told = error if isinstance(error, DiskFull) else None
        file = told.path if told is not None else _file_of(error, path)
        if file.is_relative_to(path):
            file = shown / file.relative_to(path)
        if total is None and told is not None:
            total, free = told.needed, told.free
        else:
            free = _room(path, code)
        raise DiskFull(file, code, needed=total, free=free) from error


def _file_of(error: BaseException, path: Path) -> Path:
    """The file that a failed write was about: as the error says, else the newest of the folder."""
    for each in _causes(error):
        if isinstance(each, OSError) and each.filename is not None:
            return Path(os.fsdecode(each.filename))
        if type(each).__name__ == "SafetensorError":  # it removes its file
            return path / WEIGHTS if path.is_dir() else path
    return _newest(path)


def _newest(path: Path) -> Path:
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else []
    # Clocks of files are coarse: of those of one moment the largest.
    return max(files, key=lambda each: (each.stat().st_mtime_ns, each.stat().st_size), default=path)


def _why(file: Path) -> int | None:
    """The system's error on writing a block more to a file that torch couldn't write, or None if it takes one."""
    try:
        with file.open("ab") as more:
            more.write(bytes(_PROBE))
            more.flush()
            os.fsync(more.fileno())
    except OSError as error:
        return error.errno if error.errno in REASONS else None
    return None


def _room(path: Path, code: int) -> int | None:
    """Bytes that there was room for: what is free, and what was written already."""
    if code != errno.ENOSPC:  # what is left of a quota isn't told
        return None
    free = _free(path)
    return None if free is None else free + _size(path)


def _file_limit() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _free(path: Path) -> int | None:
    folder = next((each for each in (path, *path.absolute().parents) if each.is_dir()), None)
    return None if folder is None else shutil.disk_usage(folder).free


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(each.stat().st_size for each in files if each.is_file())
