"""The question that a language model gets about two responses: a template of named fields, filled in."""

from __future__ import annotations

import difflib
import string
from pathlib import Path

from hf_align.collators.rows import Side, text_of
from hf_align.errors import UserError
from hf_align.files import read_text

ANSWERS = ("A", "B")
"""The response shown first, and the one shown second."""
REQUIRED = ("prompt", "first", "second")
FIELDS = (*REQUIRED, "principle")
"""Fields of a template."""
_SHOWN = """Prompt:
{prompt}

Response A:
{first}

Response B:
{second}

"""
QUESTION = f"""Compare two responses to a prompt.

{_SHOWN}Which response is better? Answer with A or B only."""
BY_PRINCIPLE = f"""Compare two responses to a prompt by this principle: {{principle}}

{_SHOWN}Which response follows the principle better? Answer with A or B only."""
"""Default templates without and with a principle."""


class Question:
    """What is asked about two responses.

    Args:
        template: Text with the fields {prompt}, {first} and {second}, and {principle} where there is one; literal
            braces are doubled. The answer has to be A for the first, B for the second. Default: `QUESTION`, or
            `BY_PRINCIPLE`.
        principle: What to judge by.

    Attributes:
        is_default: Whether it asks by one of the default templates.

    Raises:
        UserError: A field is missing or unknown, or the template isn't well formed.

    Example:
        >>> from hf_align.feedback.judges.question import Question
        >>> Question("Q: {prompt} A: {first} B: {second} Kinder:").text("Say hello.", "Hi", "What?")
        'Q: Say hello. A: Hi B: What? Kinder:'
    """

    def __init__(self, template: str | None = None, principle: str | None = None) -> None:
        if principle is not None and not (isinstance(principle, str) and principle.strip()):
            raise UserError(f"principle is {principle!r}; give a sentence to judge by, or None")
        self.is_default = template is None
        self.template = template or (QUESTION if principle is None else BY_PRINCIPLE)
        self.principle = principle
        _check_template(self.template, principle)

    def text(self, prompt: Side, first: Side, second: Side) -> str:
        """The question about two responses in this order.

        Args:
            prompt: Text or messages; several messages are written as a dialogue.
            first: The response called A, likewise.
            second: The response called B.
        """
        fields = {"prompt": prompt, "first": first, "second": second}
        return self.template.format(**{name: _written(side) for name, side in fields.items()}, principle=self.principle)


def read_template(prompt: str | None, place: str) -> str | None:
    """The template that a recipe names: text with fields, or a file with it.

    Raises:
        UserError: It is neither.
    """
    if prompt is None or "{" in prompt:
        return prompt
    if not Path(prompt).is_file():
        raise UserError(f"{place}: prompt is neither a file nor a template with {{prompt}}, {{first}} and {{second}}")
    return read_text(prompt, f"{place}: prompt")


def _check_template(template: str, principle: str | None) -> None:
    try:
        parts = list(string.Formatter().parse(template))
    except (ValueError, TypeError) as error:
        raise UserError(f"prompt: the template isn't well formed ({error}); double braces that are text") from None
    named = [(name, spec, conversion) for _, name, spec, conversion in parts if name is not None]
    for name, spec, conversion in named:
        if name not in FIELDS or spec or conversion:
            meant = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {{{meant[0]}}}?" if meant else f"valid are {', '.join(f'{{{n}}}' for n in FIELDS)}"
            raise UserError(f"prompt: {{{name}}} is no field of the template; {hint} (double braces that are text)")
    names = {name for name, _, _ in named}
    if missing := [name for name in REQUIRED if name not in names]:
        raise UserError(f"prompt: the template has no {{{missing[0]}}}; add it where the {_WHAT[missing[0]]} goes")
    if ("principle" in names) != (principle is not None):
        raise UserError(
            "prompt: the template has {principle} and none is given; give principle, or take the field out"
            if principle is None
            else "prompt: the template has no {principle} to put the given one; add it, or leave principle out"
        )


_WHAT = {"prompt": "prompt", "first": "response called A", "second": "response called B"}


def _written(side: Side) -> str:
    """Text as it is, a single message as its text, and several as a dialogue."""
    if isinstance(side, str):
        return side
    if len(side) == 1:
        return text_of(side)
    return "\n\n".join(f"{str(message['role']).capitalize()}: {text_of([message])}" for message in side)
