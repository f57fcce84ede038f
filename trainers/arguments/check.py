"""Options of `Trainer` that a trainer can't follow are refused by the table, before anything is loaded."""

from __future__ import annotations

import dataclasses
from typing import Any

from transformers.trainer_pt_utils import AcceleratorConfig

from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.trainers.arguments.cells import Column, Row
from hf_align.trainers.arguments.table import TABLE


def check_arguments(args: Any) -> None:
    """Refuse values that the table refuses.

    Args:
        args: A config with its trainer's `column`, through the `__post_init__` of `TrainingArguments`.

    Raises:
        UserError: Names the option, its value, the reason and what to do.
    """
    for row in TABLE.values():
        value = value_of(args, row.name)
        if value == (default := default_of(type(args), row.name)) or not (value or default):
            continue
        if (reason := reason_against(row, args.column, args, value)) is not None:
            raise UserError(f"{row.name} is {as_written(value)!r}: {reason}.")


def reason_against(row: Row, column: Column, args: Any, value: Any) -> str | None:
    """Why a value that isn't the default is refused in this column, or None."""
    cell = row.cells[column]
    if cell.verdict == "refused":
        return cell.words
    for single in value if isinstance(value, list) else [value]:
        single = as_written(single)
        if isinstance(single, str) and single in cell.values:
            return cell.values[single]
    return cell.unless(args) if cell.unless is not None else None


def value_of(args: Any, name: str) -> Any:
    """A config's value of an option, or of an entry of one."""
    option, _, entry = name.partition(".")
    return getattr(getattr(args, option), entry) if entry else getattr(args, option)


def default_of(config_class: type[Any], name: str) -> Any:
    """An option's default in this class of config, or that of an entry of one."""
    option, _, entry = name.partition(".")
    field = (AcceleratorConfig if entry else config_class).__dataclass_fields__[entry or option]
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
