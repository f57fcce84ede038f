"""The words of the table: what a trainer makes of an option."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Column = Literal["reward", "dpo", "ppo", "online", "sft"]
COLUMNS: Mapping[Column, str] = MappingProxyType(
    {"reward": "Reward", "dpo": "DPO, IPO", "ppo": "PPO", "online": "Online DPO", "sft": "SFT"}
)
"""Columns of the table with their titles. A hybrid's stages are those of their algorithms, an ensemble is `reward`."""
GROUPS: Mapping[str, tuple[Column, ...]] = MappingProxyType(
    {
        "branches": ("reward", "dpo", "ppo", "online"),
        "pairs": ("reward", "dpo"),
        "rollouts": ("ppo", "online"),
        **{column: (column,) for column in COLUMNS},
    }
)
"""Columns that a row may name together; a later group's cell replaces an earlier one's."""

Verdict = Literal["works", "differs", "refused"]


@dataclass(frozen=True)
class Cell:
    """What a trainer makes of an option.

    Attributes:
        verdict: "works" as in `Trainer`, "differs" as `words` say, or "refused" at any value but the default.
        words: For the page; of a refused option the reason, which the error gives after the option's value.
        values: Single values that are refused, with the reason.
        unless: Tells from the whole config why the option's value is refused, or None.
    """

    verdict: Verdict
    words: str = ""
    values: Mapping[Any, str] = field(default_factory=dict)
    unless: Callable[[Any], str | None] | None = None


def works(words: str = "", *, values: Mapping[Any, str] | None = None, unless: Any = None) -> Cell:
    """An option that does what it does in `Trainer`; `values` and `unless` as in `Cell`."""
    return Cell("works", words, values or {}, unless)


def differs(words: str, *, values: Mapping[Any, str] | None = None, unless: Any = None) -> Cell:
    """An option that means what `words` say; `values` and `unless` as in `Cell`."""
    return Cell("differs", words, values or {}, unless)


def refused(reason: str) -> Cell:
    """An option that must keep its default; the reason ends with what to do."""
    return Cell("refused", reason)


@dataclass(frozen=True)
class Row:
    """An option in every trainer.

    Attributes:
        name: The field of `TrainingArguments`; `accelerator_config.split_batches` is an entry of a mapping.
        cells: One for each column.
        untried: Why no test here tries it, such as a GPU that it takes; empty if one does.
        of_run: Whether a stage of a hybrid leaves it to the hybrid's own config.
    """

    name: str
    cells: Mapping[Column, Cell]
    untried: str = ""
    of_run: bool = False


def row(name: str, everywhere: Cell | None = None, *, untried: str = "", of_run: bool = False, **cells: Cell) -> Row:
    """A row whose cells are given for all columns, for `GROUPS` of them, or for one; by default it works."""
    of_column = dict.fromkeys(COLUMNS, everywhere or works())
    for group, columns in GROUPS.items():
        if group in cells:
            of_column |= dict.fromkeys(columns, cells.pop(group))
    assert not cells, f"{name}: no such columns: {', '.join(cells)}"
    return Row(name, of_column, untried, of_run)
