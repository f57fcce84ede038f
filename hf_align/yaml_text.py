"""YAML as people write recipes and tables: plain scalars of YAML 1.2, and every fault as one problem with its line.

PyYAML alone lets errors of Python through for what only its constructors see (`!!int x`, a number of 5,000 digits), and
takes anchors that contain themselves, or that stand for billions of values.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

LARGEST = 100_000
"""Most values of a text, those of an anchor counted wherever it is used."""


class YamlProblem(ValueError):
    """What is wrong with a text.

    Args:
        reason: Worded to follow "not valid YAML: ".
        line: Its line, from 1, if known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line

    def told(self, name: str) -> str:
        """A sentence about the file `name`."""
        return f"{name}{'' if self.line is None else f', line {self.line}'}: not valid YAML: {self}"


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain scalars: `1e-5` is a number and `no` is a word (the other way round in PyYAML's YAML 1.1)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # of a scalar with a tag that it doesn't fit
            text = str(node.value)
            shown = text if len(text) < 40 else f"{text[:30]}..."
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown!r} can't be read as {kind}", node.start_mark
            ) from error


_Loader.yaml_implicit_resolvers = {}

for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", None),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", None),
    (
        "float",
        r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.inf|\.nan)$",
        None,
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


class _Dumper(yaml.SafeDumper):
    """Dumper for `_Loader`: text that it would read as another type is quoted."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def read_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The nodes of a text, which know their lines, and its values.

    Returns:
        The root, None for no text, and None, bool, int, float, str, list or dict; with a tag also a date, set or bytes.

    Raises:
        YamlProblem: It is no YAML, holds a value that its tag doesn't fit, is nested too deeply, or an anchor holds
            itself or stands for too much.

    Example:
        >>> from hf_align.yaml_text import read_yaml
        >>> read_yaml("learning_rate: 1e-5")[1]
        {'learning_rate': 1e-05}
        >>> try:
        ...     read_yaml("seed: !!int x")
        ... except ValueError as problem:
        ...     print(problem.told("recipe.yaml"))
        recipe.yaml, line 1: not valid YAML: 'x' can't be read as int
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _count(node, {}, set())
        return node, loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlProblem(str(error.problem or error.context), line) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblem(f"the character U+{error.character:04X} has no place in it", line) from None
    except RecursionError:
        raise YamlProblem("it is nested too deeply") from None


def dump_yaml(values: dict[str, Any]) -> str:
    """Values as YAML that `read_yaml` reads back; nothing of nothing."""
    return "" if not values else yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _count(node: yaml.Node, counts: dict[int, int], within: set[int]) -> int:
    """Values in a node, each alias counted as what it stands for."""
    if id(node) in within:
        raise YamlProblem("an alias stands inside of its own anchor", node.start_mark.line + 1)
    if id(node) not in counts:
        within.add(id(node))
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        nodes = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        counts[id(node)] = 1 + sum(_count(each, counts, within) for each in nodes)
        within.remove(id(node))
    if counts[id(node)] > LARGEST:
        raise YamlProblem(f"its anchors stand for more than {LARGEST:,} values", node.start_mark.line + 1)
    return counts[id(node)]
