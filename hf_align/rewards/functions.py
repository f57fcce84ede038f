"""Reward functions and `score` methods, called with the arguments that they name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_align.errors import UserError

SHOWN = 60
"""Maximum characters of a prompt or response in an error message."""


ON_REQUEST = ("prompt_ids", "response_ids", "finished")
"""Arguments besides columns that a reward gets if it names them: token ids, and whether the policy ended each response
itself. A column of the same name is not passed."""


@dataclass
class Samples:
    """R prompts with one response each, as rewards see them. Every column and argument on request holds R values."""

    prompts: list[Any]  # text or messages
    texts: list[str]  # of the prompts
    responses: list[str]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    on_request: dict[str, list[Any]] = field(default_factory=dict)

    def one(self, index: int) -> Samples:
        """Only sample `index`."""

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
        """Description of sample `index` for an error message."""
        prompt, response = (shortened(texts[index]) for texts in (self.texts, self.responses))
        return f"sample {index} (prompt {prompt!r}, response {response!r})"


class RewardFunction:
    """A reward function, or the `score` method of an object, called with the arguments that it names.

    Args:
        name: Name in error messages.
        function: The function or bound method. Its first two arguments are the prompts and the responses.
        is_method: Whether it is an object's `score`, which gets prompts as in the data set, and no columns.

    Raises:
        UserError: The first two arguments can't be prompts and responses.
    """

    def __init__(self, name: str, function: Callable[..., Any], *, is_method: bool = False):
        self.function, self.is_method = function, is_method
        self.label = f"The score method of the reward '{name}'" if is_method else f"The reward function '{name}'"
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
        misplaced = positional[:2] == ["responses", "prompts"] or any(name in ON_REQUEST for name in positional[:2])
        if misplaced or not (any_number or len(positional) >= 2):
            more = "" if is_method else ", **columns"
            raise UserError(
                f"{self.label} takes ({', '.join(names)}); its first two arguments must be the prompts and the "
                f"responses: {'score' if is_method else 'f'}(prompts, responses{more})."
            )

    def check(self, columns: Iterable[str], on_request: Iterable[str] = ON_REQUEST) -> None:
        """Refuse an argument without a default that nothing is passed for.

        Args:
            columns: Columns of the data set, which functions get by name.
            on_request: Further arguments that functions and methods get by name.

        Raises:
            UserError: Names the argument.
        """
        available = {*on_request} if self.is_method else {*columns, *on_request}
        missing = [name for name, required in self.keywords.items() if required and name not in available]
        if missing and self.is_method:
            raise UserError(
                f"{self.label} asks for '{missing[0]}'; besides prompts and responses it can only get "
                f"{', '.join(on_request)}. Use a function to read columns."
            )
        if missing:
            raise UserError(
                f"{self.label} asks for '{missing[0]}', which is not a column of the data set "
                f"(columns: {', '.join(columns) or 'none'})."
            )

    def __call__(self, samples: Samples) -> Any:
        """Call the function with copies of these samples, which it may change."""
        self.check(samples.columns, samples.on_request)
        columns = {} if self.is_method else samples.columns
        available = {**columns, **samples.on_request}
        named = {name: available[name] for name in self.keywords if name in available}
        others = columns if self.takes_all else {}
        prompts = samples.prompts if self.is_method else samples.texts
        given = {name: _copied(values) for name, values in {**others, **named}.items()}
        return self.function(_copied(prompts), _copied(samples.responses), **given)


def _copied(value: Any) -> Any:
    """Lists and dicts without a part in common with the original's."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if not isinstance(value, list):
        return value
    return [_copied(each) for each in value] if any(isinstance(each, list | dict) for each in value) else list(value)


def shortened(text: str) -> str:
    """`text` on one line, shortened for an error message."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
