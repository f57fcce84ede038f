"""Constitutions: principles with their requests and questions, read from YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from hf_align.errors import UserError
from hf_align.files import read_text
from hf_align.yaml_text import YamlProblem, read_yaml

CRITIQUE = 'Name the parts of your last answer that break this principle. If there are none, say "No change needed."'
REVISION = "Write the answer again so that it follows this principle."
QUESTION = "Which response follows this principle better? {text}"
"""Requests and question of a principle that has none of its own."""
DEFAULT = "default.yaml"


@dataclass(frozen=True)
class Principle:
    """One principle.

    Attributes:
        id: Its name in rows and figures.
        text: What it demands.
        critique: Request to criticise the last answer.
        revision: Request to write it again.
        question: Question on two responses, for labels by a model.
        weight: Relative frequency with which it is drawn, and weight of its vote.
        domains: Domains of the prompts that it is for; empty: all.

    Example:
        >>> from hf_align.feedback.constitution.principles import Principle
        >>> Principle("calm", "Stay calm.").question
        'Which response follows this principle better? Stay calm.'
    """

    id: str
    text: str
    critique: str = CRITIQUE
    revision: str = REVISION
    question: str = ""
    weight: float = 1.0
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.question:
            object.__setattr__(self, "question", QUESTION.format(text=self.text))

    def suits(self, domain: str | None) -> bool:
        """Whether it is for prompts of a domain."""
        return not self.domains or domain in self.domains


@dataclass(frozen=True)
class Example:
    """A critique to learn from.

    Attributes:
        principle: Id of its principle.
        prompt: What was asked.
        response: What was answered.
        critique: The critique of it.
        revision: The answer written again; "": the critique found nothing.
    """

    principle: str
    prompt: str
    response: str
    critique: str
    revision: str = ""


@dataclass(frozen=True)
class Check:
    """The question whether a response breaks a principle, and its two answers."""

    question: str = "Does your last answer break this principle? Answer Yes or No."
    yes: str = "Yes"
    no: str = "No"


@dataclass(frozen=True)
class Constitution:
    """Principles, and what is asked, shown and looked for with them.

    Attributes:
        principles: At least one of them for prompts of any domain.
        examples: Critiques that are shown before the one that is asked for.
        check: The question that comes before a critique.
        nothing_found: Words by which a critique says that it found nothing.
        refusals: Words by which a response refuses.
        name: Where it is from.

    Raises:
        UserError: There is no principle, two have one id, or none is for all domains.

    Example:
        >>> from hf_align.feedback import Constitution
        >>> constitution = Constitution.default()
        >>> [principle.id for principle in constitution.principles][:3]
        ['harm', 'honesty', 'help']
    """

    principles: tuple[Principle, ...]
    examples: tuple[Example, ...] = ()
    check: Check = field(default_factory=Check)
    nothing_found: tuple[str, ...] = ("no change needed",)
    refusals: tuple[str, ...] = ()
    name: str = "constitution"

    def __post_init__(self) -> None:
        ids = [principle.id for principle in self.principles]
        if not ids:
            raise UserError(f"{self.name} has no principles; give at least one with id and text")
        if twice := next((id for id in ids if ids.count(id) > 1), None):
            raise UserError(f"{self.name}: two principles have the id {twice!r}; give each its own")
        if all(principle.domains for principle in self.principles):
            raise UserError(
                f"{self.name}: every principle has domains, so that prompts of others have none; leave the domains of "
                "at least one out"
            )
        for example in self.examples:
            if example.principle not in ids:
                raise UserError(f"{self.name}: an example has the principle {example.principle!r}, and there is none")

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Constitution:
        """Read a constitution.

        Args:
            path: A YAML file with `principles`, each with `id`, `text` and perhaps `critique`, `revision`, `question`,
                `weight` and `domains`; perhaps `examples`, `check`, `nothing_found` and `refusals`, as in the default
                (`hf_align/feedback/constitution/default.yaml`).

        Raises:
            UserError: The file can't be read, or something in it is wrong; the message has line and id.

        Example:
            >>> from pathlib import Path
            >>> from hf_align.feedback import Constitution
            >>> _ = Path("mine.yaml").write_text("principles:\\n  - id: calm\\n    text: Stay calm.\\n")
            >>> Constitution.from_yaml("mine.yaml").principles[0].weight
            1.0
        """
        return _parse(read_text(path, "constitution"), str(path))

    @classmethod
    def default(cls) -> Constitution:
        """The constitution that comes with hf-align."""
        text = files("hf_align.feedback.constitution").joinpath(DEFAULT).read_text(encoding="utf-8")
        return _parse(text, "default")

    def get(self, id: str) -> Principle:
        """The principle with an id."""
        return next(principle for principle in self.principles if principle.id == id)

    def suiting(self, domain: str | None) -> list[Principle]:
        """The principles for prompts of a domain."""
        return [principle for principle in self.principles if principle.suits(domain)]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can write it, without the name."""
        plain: dict[str, Any] = {
            "principles": [dict(vars(each)) for each in self.principles],
            "check": dict(vars(self.check)),
            "examples": [dict(vars(each)) for each in self.examples],
            "nothing_found": list(self.nothing_found),
            "refusals": list(self.refusals),
        }
        for each in plain["principles"]:
            each["domains"] = list(each["domains"])
        return plain


PRINCIPLE_KEYS = ("id", "text", "critique", "revision", "question", "weight", "domains")
EXAMPLE_KEYS = ("principle", "prompt", "response", "critique", "revision")
KEYS = ("principles", "examples", "check", "nothing_found", "refusals")


def _parse(text: str, name: str) -> Constitution:
    try:
        root = read_yaml(text)[0]  # nodes, in which every value is text: `no` is no truth value
    except YamlProblem as problem:
        raise UserError(problem.told(name)) from None
    if root is None:
        raise UserError(f"{name} is empty; write `principles:` with a list of them")
    reader = _Reader(name)
    top = reader.mapping(root, KEYS, "a constitution")
    if "principles" not in top:
        raise UserError(f"{name} has no principles; write `principles:` with a list of them")
    principles = [reader.principle(each, number) for number, each in enumerate(reader.items(top["principles"]), 1)]
    ids: dict[str, Any] = {}
    for principle, node in zip(principles, reader.items(top["principles"]), strict=True):
        if principle.id in ids:
            first = ids[principle.id].start_mark.line + 1
            raise UserError(f"{reader.at(node)}: principle {principle.id!r} is there already, in line {first}")
        ids[principle.id] = node
    examples = [reader.example(each, number, ids) for number, each in enumerate(reader.items(top.get("examples")), 1)]
    more: dict[str, Any] = {}
    if "check" in top:
        more["check"] = Check(**reader.texts(top["check"], ("question", "yes", "no"), "check"))
        if more["check"].yes == more["check"].no:
            raise UserError(f"{reader.at(top['check'])}: check has the same answer for yes and no; give two words")
    for key in ("nothing_found", "refusals"):
        if key in top:
            more[key] = tuple(reader.text(each, f"an entry of {key}") for each in reader.items(top[key]))
    return Constitution(tuple(principles), tuple(examples), name=name, **more)


@dataclass(frozen=True)
class _Reader:
    """Reads nodes of one file; messages begin with its name and the line."""

    name: str

    def at(self, node: yaml.Node) -> str:
        return f"{self.name}, line {node.start_mark.line + 1}"

    def mapping(self, node: yaml.Node, keys: Sequence[str], what: str) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{self.at(node)}: {what} is made of `key: value` lines; valid are {', '.join(keys)}")
        values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.value not in keys:
                raise UserError(f"{self.at(key)}: {what} has no {key.value}; valid are {', '.join(keys)}")
            if key.value in values:
                raise UserError(f"{self.at(key)}: {what} has {key.value} twice; keep one of them")
            values[key.value] = value
        return values

    def items(self, node: yaml.Node | None) -> list[yaml.Node]:
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise UserError(f"{self.at(node)}: give a list: lines that begin with `- `")
        return list(node.value)

    def text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            raise UserError(f"{self.at(node)}: {what} is no text; write it in one line, or in quotes")
        return node.value.strip()

    def texts(self, node: yaml.Node, keys: Sequence[str], what: str) -> dict[str, str]:
        values = self.mapping(node, keys, what)
        return {key: self.text(value, f"{key} of {what}") for key, value in values.items()}

    def principle(self, node: yaml.Node, number: int) -> Principle:
        values = self.mapping(node, PRINCIPLE_KEYS, f"principle {number}")
        what = f"principle {number}"
        if "id" in values:
            what = f"principle {self.text(values['id'], f'id of {what}')!r}"
        self.need(node, values, ("id", "text"), what)
        more: dict[str, Any] = {}
        if "weight" in values:
            more["weight"] = self.weight(values["weight"], what)
        if "domains" in values:
            more["domains"] = tuple(self.text(each, f"a domain of {what}") for each in self.items(values["domains"]))
        texts = {key: value for key, value in values.items() if key not in more}
        return Principle(**{key: self.text(value, f"{key} of {what}") for key, value in texts.items()}, **more)

    def weight(self, node: yaml.Node, what: str) -> float:
        text = self.text(node, f"weight of {what}")
        try:
            weight = float(text)
        except ValueError:
            weight = -1.0
        if not 0 < weight < float("inf"):
            raise UserError(f"{self.at(node)}: weight of {what} is {text}; give a number above 0")
        return weight

    def example(self, node: yaml.Node, number: int, ids: Mapping[str, Any]) -> Example:
        values = self.texts(node, EXAMPLE_KEYS, f"example {number}")
        self.need(node, values, EXAMPLE_KEYS[:-1], f"example {number}")
        if values["principle"] not in ids:
            raise UserError(
                f"{self.at(node)}: example {number} has the principle {values['principle']!r}; there is none"
            )
        return Example(**values)

    def need(self, node: yaml.Node, values: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
        for key in keys:
            if key not in values:
                raise UserError(f"{self.at(node)}: {what} has no {key}; write `{key}: ...`")
