"""A recipe's keys and the types of its values, checked, with what was meant in place of an unknown key."""

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, get_args

from hf_align.algorithms import ALGORITHMS, Need, Rows
from hf_align.coerce import coerce
from hf_align.errors import UserError
from hf_align.experiments.foreign_keys import name_here
from hf_align.experiments.recipe.keys import AUGMENT_KEYS, PREPARE_KEYS, field_hints, source_keys
from hf_align.experiments.recipe.reading import Recipe

SHOWN = 30
"""Most keys that a message lists."""
COMMAND_FLAGS = ("config", "print_config", "dry_run")
"""Flags of a training command besides the recipe's keys."""


@dataclasses.dataclass(frozen=True)
class CheckedRecipe:
    """A recipe with valid keys, and values of their fields' types."""

    source: dict[str, Any]
    lora: dict[str, Any] | None
    config: dict[str, Any]


def check_recipe(
    recipe: Recipe,
    config_class: type,
    lora_class: type,
    needs: Iterable[Need] = (),
    rows: Rows | None = None,
    *,
    whole: bool = True,
) -> CheckedRecipe:
    """Refuse unknown keys and wrong types, and sort the values by destination.

    Args:
        recipe: From `read_recipe`.
        config_class: The command's config dataclass (`DPOConfig`).
        lora_class: `peft.LoraConfig`.
        needs: The algorithm's needs (`Algorithm.needs`), which make further keys valid or required.
        rows: The kind of rows that it trains on, which does, too.
        whole: Whether required keys must be there; a plan may lack data and reward.

    Returns:
        The values, converted to their fields' types. `lora` is None for no LoRA.

    Raises:
        UserError: A key is unknown (the message suggests the nearest one), a value has the wrong type, or a required
            key such as `model` is missing.
    """
    sources = source_keys(needs, rows)
    hints = {**field_hints(config_class), **sources}
    checked = check_values(recipe, hints, sources)
    for key, hint in sources.items():
        if whole and checked.get(key) is None and types.NoneType not in get_args(hint):
            raise missing_key(key)
    source = {key: checked.pop(key, None) for key in sources}
    if (quantization := source["quantization"]) not in (None, "8bit", "4bit"):
        raise UserError(f"{recipe.where('quantization')} is 8bit, 4bit or null, not {quantization!r}")
    for name, keys in (("augment", AUGMENT_KEYS), ("prepare", PREPARE_KEYS)):
        if isinstance(values := source.get(name), dict):
            source[name] = _checked_mapping(recipe, name, values, keys)
    lora = source.pop("lora")
    if isinstance(lora, dict):
        return CheckedRecipe(source, _checked_mapping(recipe, "lora", lora, field_hints(lora_class)), checked)
    return CheckedRecipe(source, {} if lora else None, checked)


def check_given(values: Mapping[str, Any], keys: Iterable[str], file: str = "recipe") -> None:
    """Refuse values that lack one of the keys, or in which it is empty.

    Raises:
        UserError: Names the key.
    """
    for key in keys:
        if values.get(key) in (None, "", [], {}):
            raise missing_key(key, file)


def missing_key(key: str, file: str = "recipe") -> UserError:
    """Error to raise for a key that a file of this kind must have."""
    return UserError(f"{key} is missing: write `{key}: ...` in the {file} or pass --{key}")


def check_values(recipe: Recipe, hints: dict[str, Any], sources: Iterable[str]) -> dict[str, Any]:
    """Values of a recipe, converted to their types.

    Args:
        recipe: From `read_recipe`.
        hints: Types of all valid keys.
        sources: The keys that a message lists for one that is near none, beside the fields of the config.

    Raises:
        UserError: A key is unknown, or a value has the wrong type.
    """
    return {key: _checked(recipe, key, value, hints, sources) for key, value in recipe.values.items()}


def _checked_mapping(recipe: Recipe, name: str, values: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The values of a key that is a mapping with these fields."""
    hints = {f"{name}.{field}": hint for field, hint in fields.items()}
    return {key: _checked(recipe, f"{name}.{key}", value, hints, hints) for key, value in values.items()}


def _checked(recipe: Recipe, key: str, value: Any, hints: dict[str, Any], sources: Iterable[str]) -> Any:
    place = recipe.where(key)
    if key not in hints:
        raise UserError(f"{place} is not a valid key; {_what_was_meant(key, hints, sources, place)}")
    try:
        return coerce(value, hints[key])
    except TypeError as error:
        if value is None or key in recipe.bare:
            raise UserError(f"{place} has no value; it expects {error}") from None
        raise UserError(f"{place} expects {error}, got {value!r}") from None


def _what_was_meant(key: str, hints: dict[str, Any], sources: Iterable[str], place: str) -> str:
    """The commands that have this key, else the nearest key, else the source keys."""
    owners = []
    for name in ALGORITHMS:
        with suppress(UserError):  # another package's broken algorithm is reported when it is used
            algorithm = ALGORITHMS[name]
            if key in {**source_keys(algorithm.needs, algorithm.rows), **field_hints(algorithm.load()[1])}:
                owners.append(name)
    if owners:
        return f"it belongs to {', '.join(owners)}"
    if here := name_here(key, hints):
        return here
    flags = COMMAND_FLAGS if place.startswith("--") else ()
    if nearest := difflib.get_close_matches(key, [*hints, *flags], n=1, cutoff=0.6):
        return f"did you mean {nearest[0]}?"
    fields = " and the fields of the command's config" * (len(hints) > len(names := list(sources)))
    more = f" and {len(names) - SHOWN} more" * (len(names) > SHOWN)
    return f"valid are {', '.join(names[:SHOWN])}{more}{fields}"
