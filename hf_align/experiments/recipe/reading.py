"""A recipe as it is written: values of a YAML file and of flags, each with its place for messages."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_align.errors import UserError
from hf_align.files import read_text
from hf_align.yaml_text import YamlProblem, read_yaml


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
