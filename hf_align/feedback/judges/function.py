"""A function of two responses as a judge."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from hf_align.collators.rows import Side, text_of
from hf_align.errors import UserError
from hf_align.feedback.opinions import read_preference
from hf_align.rewards.judges import Judgement, Opinion, judge_orders


class FunctionJudge:
    """A function as a judge, asked in both orders; where it contradicts itself, the pair is a tie.

    Args:
        function: `f(prompt, first, second)` of texts, or messages where the prompts are messages. It returns the
            probability that the first is better, "first", "second" or "tie", or None for no opinion.
        name: Name in reports and stores. Default: the function's.

    Raises:
        UserError: `function` can't be called, or not with three arguments.

    Example:
        >>> from hf_align.feedback import FunctionJudge
        >>> shorter = FunctionJudge(lambda prompt, first, second: float(len(first) < len(second)), "shorter")
        >>> [judgement] = shorter.compare(["Say hello."], ["Hello!"], ["Good morning to all of you!"])
        >>> judgement.preference
        1.0
    """

    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        if not callable(function):
            raise UserError(f"judge: {function!r} is no function; give f(prompt, first, second)")
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)
        if not _takes_three(function):
            raise UserError(f"judge: {self.name!r} doesn't take three arguments; write it as f(prompt, first, second)")

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """Judge `[N]` pairs of responses to `[N]` prompts.

        Raises:
            UserError: The function fails, or returns something else than a preference; the message names the prompt.
        """
        return judge_orders(self._ask, prompts, firsts, seconds)

    def _ask(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Opinion]:
        return [self._opinion(*pair) for pair in zip(prompts, firsts, seconds, strict=True)]

    def _opinion(self, prompt: Side, first: Side, second: Side) -> Opinion:
        try:
            return read_preference(self.function(prompt, first, second))
        except Exception as error:  # any error of the user's function
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            shown = " ".join(text_of(prompt).split())[:60]
            raise UserError(f"judge {self.name!r} failed on prompt {shown!r}: {reason}") from error


def _takes_three(function: Callable[..., Any]) -> bool:
    """Whether it takes prompt and responses, and nothing more but the `principle` that a constitution gives it."""
    try:
        signature = inspect.signature(function)
        signature.bind(None, None, None, **({"principle": None} if "principle" in signature.parameters else {}))
    except TypeError:
        return False
    except ValueError:  # some built-in functions don't tell
        return True
    return True
