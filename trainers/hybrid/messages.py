"""How messages name a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hf_align.errors import LoadError, UserError


def label_of(number: int, name: str) -> str:
    """A stage's name in messages."""
    return f"stage {number} ({name})"


@contextmanager
def in_stage(label: str) -> Iterator[None]:
    """Name the stage in a `UserError`."""
    try:
        yield
    except LoadError as error:
        raise LoadError(f"{label}: {error}", error.source) from error
    except UserError as error:
        if str(error).startswith("stage "):
            raise
        raise UserError(f"{label}: {error}") from error
