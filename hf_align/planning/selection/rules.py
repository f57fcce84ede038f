"""The table of rules: read, checked, and applied to features."""

from __future__ import annotations

import difflib
import math
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.files import read_text
from hf_align.planning.selection.candidates import VARIANTS, candidates
from hf_align.planning.selection.features import Features
from hf_align.planning.selection.needs import checked_needs
from hf_align.yaml_text import YamlProblem, read_yaml

DEFAULT = Path(__file__).with_name("rules.yaml")
PARTS = ("data", "needs", "model")
READ = ("measured", "abstract", "second-hand", "definition")
BY = {"by_memory": "memory", "by_time": "operations"}
OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_CONDITION = re.compile(r"(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)")
EXCLUDE = "exclude"
NAMES = ("need", *(each.name for each in fields(Features) if each.name != "needs"))
"""What a condition can be about."""


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
        name: Its name.
        part: Part of the score that it changes: "data", "needs" or "model".
        when: Conditions by feature, all of which must hold; one on an unknown feature doesn't.
        effect: What is added to an algorithm's part, by algorithm; "exclude" leaves it out; "by_memory" or "by_time"
            for all: the least estimate over its own, less one half.
        because: The reason that is shown.
        source: Where it comes from.
        read: How far the source was read: "measured", "abstract", "second-hand" or "definition".
        scope: Where it was seen.
        revise: What would change the advice.
    """

    name: str
    part: Literal["data", "needs", "model"]
    when: Mapping[str, Any]
    effect: Mapping[str, float | str] | str
    because: str
    source: tuple[str, ...]
    read: str
    scope: str
    revise: str

    @property
    def excluded(self) -> set[str]:
        """Algorithms that it leaves out."""
        effects = {} if isinstance(self.effect, str) else self.effect
        return {name for name, value in effects.items() if value == EXCLUDE}

    def holds(self, features: Features) -> bool:
        """Whether all conditions hold."""
        return all(_holds(name, condition, features) for name, condition in self.when.items())

    def effects(self, names: Sequence[str], estimates: Mapping[str, Any]) -> dict[str, float | str]:
        """The effect by algorithm.

        Args:
            names: Algorithms that are compared.
            estimates: `Estimate` of each whose memory and operations are known.
        """
        if not isinstance(self.effect, str):
            return {name: value for name, value in self.effect.items() if name in names}
        own = {name: float(getattr(each, BY[self.effect])) for name, each in estimates.items() if name in names}
        least = min(own.values(), default=0.0)
        return {name: (least / value if value else 1.0) - 0.5 for name, value in own.items()}


def read_rules(file: str | os.PathLike[str] = DEFAULT) -> tuple[Rule, ...]:
    """Read a table of rules: a YAML list, as the default one, hf_align/planning/selection/rules.yaml.

    Raises:
        UserError: It can't be read, or a rule lacks a key, has an unknown one, or one with a wrong value.
    """
    try:
        read = read_yaml(read_text(file, "rules"))[1]
    except YamlProblem as problem:
        raise UserError(f"rules: {problem.told(str(file))}") from None
    if not isinstance(read, list):
        raise UserError(f"rules: {file} must be a list of rules")
    rules = tuple(_read_rule(entry, f"{file}, rule {number}") for number, entry in enumerate(read, 1))
    if len(names := {rule.name for rule in rules}) < len(rules):
        twice = next(name for name in names if sum(rule.name == name for rule in rules) > 1)
        raise UserError(f"rules: {file} has two rules named {twice}")
    return rules


def compatible_needs(needs: Sequence[str], rules: Iterable[Rule]) -> tuple[str, ...]:
    """The needs without repeats, of which rules about nothing else leave an algorithm.

    Raises:
        UserError: One is unknown, or no algorithm meets all.
    """
    stated = checked_needs(needs)
    told = [rule for rule in rules if rule.when.keys() == {"need"} and rule.when["need"] in stated and rule.excluded]
    if all(any(each.name in rule.excluded for rule in told) for each in candidates()):
        names = dict.fromkeys(rule.when["need"] for rule in told)
        raise UserError(f"need: no algorithm meets {' and '.join(names)} together; leave one out")
    return stated


def _read_rule(entry: Any, place: str) -> Rule:
    keys = [each.name for each in fields(Rule)]
    if not isinstance(entry, Mapping):
        raise UserError(f"rules: {place} is no mapping with {', '.join(keys)}")
    for key in entry:
        if key not in keys:
            raise UserError(f"rules: {place}: there is no key {key!r}; {_meant(key, keys)}")
    if absent := [key for key in keys if entry.get(key) in (None, "", [])]:
        raise UserError(f"rules: {place}: {absent[0]} is missing; a rule has {', '.join(keys)}")
    for key, allowed in (("part", PARTS), ("read", READ)):
        if entry[key] not in allowed:
            raise UserError(f"rules: {place}: {key} is {entry[key]!r}; it is one of {', '.join(allowed)}")
    sources = (entry["source"],) if isinstance(entry["source"], str) else entry["source"]
    if not isinstance(sources, Sequence) or not all(isinstance(each, str) and each.strip() for each in sources):
        raise UserError(f"rules: {place}: source must be a text or a list of texts")
    if not isinstance(entry["when"], Mapping):
        raise UserError(f"rules: {place}: when must be a mapping of features to conditions")
    for name, condition in entry["when"].items():
        _check_condition(name, condition, place)
    texts = {key: str(entry[key]) for key in ("name", "because", "read", "scope", "revise")}
    return Rule(
        part=entry["part"],
        when=dict(entry["when"]),
        effect=_read_effect(entry["effect"], place),
        source=tuple(sources),
        **texts,
    )


def _check_condition(name: Any, condition: Any, place: str) -> None:
    if name not in NAMES:
        raise UserError(f"rules: {place}: there is no feature {name!r}; {_meant(name, NAMES)}")
    if name == "need":
        checked_needs([condition])
    elif isinstance(condition, str) and condition[:1] in "<>" and not _CONDITION.fullmatch(condition.strip()):
        raise UserError(f"rules: {place}: {condition!r} is no condition on a number; write one like '>= 0.1'")


def _read_effect(effect: Any, place: str) -> dict[str, float | str] | str:
    if isinstance(effect, str) and effect in BY:
        return effect
    if not isinstance(effect, Mapping):
        raise UserError(f"rules: {place}: effect must be a mapping of algorithms to numbers, or {' or '.join(BY)}")
    names = {*(each.name for each in VARIANTS), *ALGORITHMS, "hybrid"}
    read: dict[str, float | str] = {}
    for together, value in effect.items():
        if value != EXCLUDE and (isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1):
            raise UserError(f"rules: {place}: the effect on {together} is {value!r}; give -1 to 1, or {EXCLUDE}")
        for name in str(together).split():
            if name not in names:
                raise UserError(f"rules: {place}: there is no algorithm {name!r}; {_meant(name, sorted(names))}")
            read[name] = value
    return read


def _holds(name: str, condition: Any, features: Features) -> bool:
    if name == "need":
        return condition in features.needs
    value = getattr(features, name)
    if value is None:
        return False
    if isinstance(condition, str) and (match := _CONDITION.fullmatch(condition.strip())):
        return not math.isnan(value) and OPERATORS[match[1]](value, float(match[2]))
    return bool(value == condition)


def _meant(name: Any, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
