"""Paths that the system refuses, told in one sentence: permissions, names that are too long, circles of links."""

from __future__ import annotations

import errno
import os
import re

from hf_align.errors import UserError

REASONS = {
    errno.EACCES: "permission is denied; allow it, or name another",
    errno.EPERM: "the system doesn't permit it; name another",
    errno.EROFS: "its disk is read-only; name another",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "its links lead in a circle; name what they should lead to",
    errno.ENOTDIR: "a part of it is a file where a folder is needed; name another",
    errno.EEXIST: "it is there already, and no folder; name another",
    errno.EISDIR: "it is a folder, not a file; name a file",
}
"""Errors of the system that are about a path alone, and their words."""


def unusable_path_error(error: BaseException) -> UserError | None:
    """The sentence to tell where the system refused a path, which even looking whether it exists may do, else None.

    Example:
        >>> from hf_align.unusable_paths import unusable_path_error
        >>> print(unusable_path_error(PermissionError(13, "Permission denied", "out/run.sqlite")))
        out/run.sqlite can't be used: permission is denied; allow it, or name another
    """
    circle = re.fullmatch("Symlink loop from '(.*)'", str(error))  # pathlib's words
    if isinstance(error, RuntimeError) and circle:
        return UserError(f"{circle[1]} can't be used: {REASONS[errno.ELOOP]}")
    if not isinstance(error, OSError) or error.errno not in REASONS or error.filename is None:
        return None
    return UserError(f"{os.fsdecode(error.filename)} can't be used: {REASONS[error.errno]}")
