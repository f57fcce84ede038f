"""Reward functions: called with the arguments that they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_align.errors import UserError

SHOWN = 60
"""Characters of a prompt and a response in an error message."""


ON_REQUEST = ("prompt_ids", "response_ids", "finished")
"""What a reward gets if it has a parameter of this name, besides columns: token ids, and whether the policy ended the
response itself."""


@dataclass
class Samples:
    """R prompts with a response each, as rewards see them. Columns and what is given on request hold R values each."""

    prompts: list[Any]  # text or messages
    texts: list[str]  # of the prompts
    responses: list[str]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    on_request: dict[str, list[Any]] = field(default_factory=dict)

    def one(self, index: int) -> Samples:
        """Sample `index` alone."""

        def pick(named: Mapping[str, list[Any]]) -> dict[str, Any]:
            return {name: [values[index]] for name, values in named.items()}

        return Samples(
            [self.prompts[index]],
            [self.texts[index]],
            [self.responses[index]],
            pick(self.columns),
            pick(self.on_request),
        )

    def shown(self, index: int) -> str:
        """Sample `index` for an error message."""
        prompt, response = (shortened(texts[index]) for texts in (self.texts, self.responses))
        return f"sample {index} (prompt {prompt!r}, response {response!r})"


class RewardFunction:
    """A reward function, called with the arguments that it asks for."""

    def __init__(self, name: str, function: Callable[..., Any]):
        self.name, self.function = name, function
        try:
            parameters = list(inspect.signature(function).parameters.values())
            any_number = any(p.kind == p.VAR_POSITIONAL for p in parameters)
        except ValueError:  # built in
            parameters, any_number = [], True
        names = [p.name for p in parameters if p.kind != p.VAR_KEYWORD]
        self.takes_all = any(p.kind == p.VAR_KEYWORD for p in parameters)
        positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        keywords = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.keywords = {p.name: p.default is p.empty for p in keywords if p.name not in positional[:2]}
        if positional[:2] == ["responses", "prompts"] or not (any_number or len(positional) >= 2):
            raise UserError(
                f"The reward function '{name}' takes ({', '.join(names)}); its first two arguments must be the prompts "
                "and the responses: f(prompts, responses, **columns)."
            )

    def check(self, columns: Iterable[str], on_request: Iterable[str] = ON_REQUEST) -> None:
        """Refuse a data set without a column that the function asks for; `on_request` are there besides."""
        missing = [n for n, required in self.keywords.items() if required and n not in {*columns, *on_request}]
        if missing:
            raise UserError(
                f"The reward function '{self.name}' asks for '{missing[0]}', which is no column of the data set "
                f"(columns: {', '.join(columns) or 'none'})."
            )

    def __call__(self, samples: Samples) -> Any:
        """Call the function with these samples."""
        self.check(samples.columns, samples.on_request)
        known = {**samples.columns, **samples.on_request}
        chosen = {name: known[name] for name in self.keywords if name in known}
        others = samples.columns if self.takes_all else {}
        return self.function(samples.texts, samples.responses, **{**others, **chosen})


def asks_for_finished(score: Callable[..., Any]) -> bool:
    """Whether an object's `score` has a parameter of this name."""
    try:
        return "finished" in inspect.signature(score).parameters
    except ValueError:  # built in
        return False


def shortened(text: str) -> str:
    """`text` on one line, cut to what an error message shows."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
