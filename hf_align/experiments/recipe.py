"""Recipes: a YAML file plus flags, checked key by key against the command's config before anything is loaded.

A recipe is flat. A few keys name the models and data (`SOURCE_KEYS`); every other key is a field of the command's
config class. `lora` may be `true` or a mapping of `peft.LoraConfig` fields, `augment` is one of `AUGMENT_KEYS`,
`prepare` may be `true` or one of `PREPARE_KEYS`. Flags have the same names and override the file:
`--learning_rate 1e-5`, `--lora.r 32`.
"""

import dataclasses
import difflib
import enum
import types
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from hf_align.algorithms import ALGORITHMS, Need, Rows
from hf_align.coerce import coerce
from hf_align.errors import UserError
from hf_align.experiments.foreign_keys import name_here
from hf_align.files import read_text
from hf_align.yaml_text import YamlProblem, dump_yaml, read_yaml

SOURCE_KEYS: dict[str, Any] = {
    "model": str,
    "train_dataset": str,
    "eval_dataset": str | None,
    "quantization": str | None,
    "lora": bool | dict | None,
}
"""Keys of every algorithm that name its model and data."""
KEYS_OF_NEEDS: dict[str, dict[str, Any]] = {
    "reference": {"ref_model": str | None},
    "reward": {"reward": str | list, "judge": str | list | None},
    "label": {"reward": str | list | None, "judge": str | list | dict | None, "eval_judge": str | list | None},
}
"""Further such keys, by the need that they meet."""
STREAMING: dict[str, Any] = {"streaming": bool | None, "shuffle_buffer": int | None}
"""Keys of algorithms that train on streams: whether the rows are one, and how many it is shuffled among."""
KEYS_OF_ROWS: dict[Rows, dict[str, Any]] = {
    "pairs": {"augment": dict | None, **STREAMING},
    "comparisons": {"augment": dict | None, **STREAMING},
    "demonstrations": {"train_dataset": str | list[str], "prepare": bool | dict | None},
}
"""Further such keys, or other types of them, by the kind of rows."""
AUGMENT_KEYS: dict[str, Any] = {
    "transitivity": bool | float,
    "interpolation": bool | float,
    "paraphrase": str | None,
    "back_translation": str | None,
}
"""Keys of `augment`: arguments of `hf_align.data.augment`, functions as `FILE.py:FUNCTION` or `MODULE:FUNCTION`."""
PREPARE_KEYS: dict[str, Any] = {
    "clean": bool,
    "quality": str | None,
    "min_quality": float,
    "duplicates": float | None,
    "contamination": Literal["prompt", "row"],
    "balance": str | None,
    "most": int | None,
    "ratio": float | None,
}
"""Keys of `prepare`: arguments of `hf_align.data.prepare_sft`; a function for `quality` is named as above."""
SHOWN = 30
"""Most keys that a message lists."""
COMMAND_FLAGS = ("config", "print_config", "dry_run")
"""Flags of a training command besides the recipe's keys."""


@dataclasses.dataclass
class Recipe:
    """Raw values of a recipe, each with its place in the file or command line.

    Attributes:
        values: Key to value; `lora` may hold a mapping.
        places: Key (`lora.r` for a nested one) to its place, for messages.
        bare: Keys of flags without a value, which are true.
    """

    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    places: dict[str, str] = dataclasses.field(default_factory=dict)
    bare: set[str] = dataclasses.field(default_factory=set)

    def where(self, key: str) -> str:
        """Place of `key`, as the start of a message."""
        return self.places.get(key) or self.places.get(key.split(".")[0]) or key

    def entry(self, name: str, number: int, values: dict[str, Any]) -> "Recipe":
        """A recipe of these values of an entry, counted from 1, of the list below `name`, with their places."""
        return self.below(f"{name}.{number}", values)

    def below(self, path: str, values: dict[str, Any]) -> "Recipe":
        """A recipe of these values, which are below `path` (keys joined by dots), with their places."""
        prefix = f"{path}."

        def inside(keys: Iterable[str]) -> list[str]:
            return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]

        places = {key: f"{prefix}{key}" for key in values} | {
            key: self.places[prefix + key] for key in inside(self.places)
        }
        return Recipe(values, places, set(inside(self.bare)))


@dataclasses.dataclass(frozen=True)
class CheckedRecipe:
    """A recipe with valid keys, and values of their fields' types."""

    source: dict[str, Any]
    lora: dict[str, Any] | None
    config: dict[str, Any]


def read_recipe(path: str | None, overrides: Sequence[str]) -> Recipe:
    """Read a recipe file and apply the flags.

    Args:
        path: The YAML file, or None for flags alone.
        overrides: Flags that argparse didn't recognise: `["--beta", "0.2", "--lora.r=8", "--bf16"]`.

    Returns:
        The recipe. Keys are not checked yet, which takes the command's config (`check_recipe`).

    Raises:
        UserError: The file is missing, not YAML or not a mapping, repeats a key, or a flag has no name.
    """
    recipe = _read_file(Path(path)) if path is not None else Recipe()
    for flag, text in _split_flags(overrides):
        try:
            value = True if text is None else read_yaml(text)[1]
        except YamlProblem:
            value = text
        key = _as_in(recipe.values, flag.lstrip("-").split("."))
        head, _, tail = key.partition(".")
        recipe.values[head] = _with_value(recipe.values.get(head), tail, value, f"--{key}") if tail else value
        recipe.places[key] = f"--{key}"
        (recipe.bare.add if text is None else recipe.bare.discard)(key)
    return recipe


def _as_in(values: Any, names: Sequence[str]) -> str:
    """The key of a flag: with underscores, but names that the file's mappings have as they are there."""
    path: list[str] = []
    for name in names:
        path.append(name if isinstance(values, dict) and name in values else name.replace("-", "_"))
        values = values.get(path[-1]) if isinstance(values, dict) else None
    return ".".join(path)


def _with_value(parent: Any, tail: str, value: Any, place: str) -> Any:
    """A mapping, or a list of mappings counted from 1, with a value below the key `tail` (of a list: `2.beta`)."""
    if not isinstance(parent, list):
        mapping = parent if isinstance(parent, dict) else {}
        dotted = any("." in str(key) for key in mapping)  # as those of vary: lora.r
        head, _, rest = (tail, "", "") if dotted else tail.partition(".")
        return {**mapping, head: _with_value(mapping.get(head), rest, value, place) if rest else value}
    number, _, key = tail.partition(".")
    if not (number.isdigit() and 1 <= int(number) <= len(parent)) or not key:
        raise UserError(f"{place}: the recipe has entries 1 to {len(parent)} there; write {place.split('.')[0]}.1.KEY")
    entry = parent[int(number) - 1]
    if not isinstance(entry, dict):
        raise UserError(f"{place}: entry {number} is {entry!r}, which has no keys; write it as a mapping")
    head, _, rest = key.partition(".")
    changed = {**entry, head: _with_value(entry.get(head), rest, value, place) if rest else value}
    return [*parent[: int(number) - 1], changed, *parent[int(number) :]]


def read_value(text: str, place: str) -> Any:
    """A value of a recipe written as a flag, such as a mapping in braces.

    Raises:
        UserError: It isn't YAML.
    """
    try:
        return read_yaml(text)[1]
    except YamlProblem as problem:
        raise UserError(f"{place} is not valid YAML: {problem}") from None


def _read_file(path: Path) -> Recipe:
    try:
        node, values = read_yaml(read_text(path, "--config"))
    except YamlProblem as problem:
        raise UserError(problem.told(str(path))) from None
    if values is None:
        return Recipe()
    if not isinstance(node, yaml.MappingNode):
        kind = {"list": "a list", "str": "plain text"}.get(type(values).__name__, "a single value")
        raise UserError(
            f"{path}: a recipe is made of `key: value` lines (with a space after the colon), not {kind}; write "
            "`model: ORG/MODEL` and so on"
        )
    return Recipe(values, dict(_places(node, path)))


def _places(node: yaml.MappingNode, path: Path, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Every key with its line; YAML itself would silently let the later of two equal keys win."""
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        place = f"{path}, line {key_node.start_mark.line + 1}: {key}"
        if key in seen:
            raise UserError(f"{place} is given twice; keep one of them")
        if not prefix and key_node.tag != "tag:yaml.org,2002:str":
            raise UserError(f"{place} is not a valid key; keys are words, such as `model`")
        seen.add(key)
        yield key, place
        if isinstance(value_node, yaml.MappingNode):
            yield from _places(value_node, path, f"{key}.")
        for number, entry in enumerate(value_node.value if isinstance(value_node, yaml.SequenceNode) else (), start=1):
            if isinstance(entry, yaml.MappingNode):
                yield from _places(entry, path, f"{key}.{number}.")


def _split_flags(arguments: Sequence[str]) -> Iterable[tuple[str, str | None]]:
    """Pairs of flag and text; a flag without a value has None, which means true."""
    rest = list(arguments)
    while rest:
        flag = rest.pop(0)
        if not flag.startswith("--") or len(flag) == 2:
            raise UserError(f"{flag!r} is not a flag; write --field value")
        name, equals, text = flag.partition("=")
        if equals:
            yield name, text
        elif rest and not rest[0].startswith("--"):
            yield name, rest.pop(0)
        else:
            yield name, None


def source_keys(needs: Iterable[Need], rows: Rows | None = None) -> dict[str, Any]:
    """List the keys that name models and data, with their types, for an algorithm with these needs and rows."""
    of_needs = {key: hint for need in needs for key, hint in KEYS_OF_NEEDS.get(need, {}).items()}
    return {**SOURCE_KEYS, **of_needs, **({} if rows is None else KEYS_OF_ROWS.get(rows, {}))}


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
            raise UserError(f"{key} is missing: write `{key}: ...` in the recipe or pass --{key}")
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


def field_hints(config_class: type) -> dict[str, Any]:
    """Types of the fields that a config's constructor accepts."""
    hints = get_type_hints(config_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class) if field.init}


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


def dump_recipe(checked: CheckedRecipe, config_class: type, hidden: Iterable[str] = ()) -> str:
    """Write a recipe as YAML with every option in effect; `read_recipe` reads it back to the same run.

    Explicit values come first, then the other options at their defaults, ours before those of transformers. A token is
    left out.

    Args:
        checked: From `check_recipe`.
        config_class: The command's config dataclass.
        hidden: Options whose defaults are left out.
    """
    written = {key: value for key, value in checked.source.items() if value is not None}
    if checked.lora is not None:
        written["lora"] = checked.lora or True
    text = dump_yaml({**written, **{key: value for key, value in checked.config.items() if key != "hub_token"}})
    foreign = next(cls for cls in config_class.__mro__ if not cls.__module__.startswith("hf_align"))
    ours = {name for cls in config_class.__mro__[: config_class.__mro__.index(foreign)] for name in cls.__annotations__}
    left_out = {*checked.config, "hub_token", *hidden}
    rest = [field for field in dataclasses.fields(config_class) if field.init and field.name not in left_out]
    for owner, is_ours in ((config_class, True), (foreign, False)):
        if values := {field.name: _default(field) for field in rest if (field.name in ours) is is_ours}:
            text += f"\n# defaults of {owner.__name__}\n{dump_yaml(values)}"
    return text


def _default(field: dataclasses.Field[Any]) -> Any:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return value.value if isinstance(value, enum.Enum) else value
