"""Judges of a run: which ones a recipe names, and judgements that are stored block by block."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_align.collators.rows import Side
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback.judges.named import check_judge
from hf_align.models.quantized import Quantization
from hf_align.progress import Progress
from hf_align.rewards.judges import TIE, Judge, Judgement

SELF = "self"
"""Name of the policy itself as a judge."""
KINDS = ("reward", "function", "model", "endpoint")
"""Keys of a recipe's judge that say what it is."""


@dataclass(frozen=True)
class RecipeJudge:
    """A judge as a recipe names it, which may be the policy of each round.

    Attributes:
        value: A name or a mapping, as `check_judge` takes them; or "self", or a mapping with `model: self`.
        place: Its place in the recipe, for messages.
        quantization: Quantisation of the policy as a judge, unless the mapping has its own.
    """

    value: Any
    place: str
    quantization: Quantization = None

    @property
    def is_policy(self) -> bool:
        """Whether the policy of each round judges."""
        return self.value == SELF or (isinstance(self.value, Mapping) and self.value.get("model") == SELF)

    @property
    def name(self) -> str:
        """Name in figures and cards, without folders."""
        return ", ".join(sorted(os.path.basename(each) if os.path.isabs(each) else each for each in self.sources(SELF)))

    def resolved(self, policy: str) -> Any:
        """The value, with a policy's folder or Hub id in place of "self"."""
        if not self.is_policy:
            return self.value
        given = self.value if isinstance(self.value, Mapping) else {}
        return {"quantization": self.quantization, **given, "model": policy}

    def sources(self, policy: str) -> set[str]:
        """Models, functions and endpoints that it is made of; files and folders by their real paths.

        Args:
            policy: Stands for "self".
        """
        value = self.resolved(policy)
        if isinstance(value, Mapping):
            value = next((value[kind] for kind in KINDS if kind in value), None)
        entries = value if isinstance(value, list) else [value]
        names = (each.get("reward") if isinstance(each, Mapping) else each for each in entries)
        return {_real(str(name)) for name in names}

    def file_digests(self) -> list[str]:
        """Digests of what its files hold: those of its functions, of a question and of pairs to calibrate by.

        A module named without its file counts once it is imported, as by `checked`.
        """
        named = {function.rpartition(":")[0] for function in self.sources(SELF) if ":" in function}
        files = {getattr(sys.modules.get(name), "__file__", None) or name for name in named}
        if isinstance(self.value, Mapping):
            files |= {value for value in self.value.values() if isinstance(value, str)}
        contents = [Path(file).read_bytes() for file in sorted(files) if os.path.isfile(file)]
        return [hashlib.sha256(content).hexdigest() for content in contents]

    def checked(self, policy: str) -> Judge:
        """The judge, which is loaded when it is first asked.

        Args:
            policy: The policy that judges where the recipe says "self".

        Raises:
            UserError: It doesn't exist, or a key of its mapping is wrong.
        """
        return check_judge(self.resolved(policy), self.place)


def _real(name: str) -> str:
    """A name by which the same thing is recognised."""
    path, colon, function = name.rpartition(":")
    if colon and function.isidentifier() and os.path.exists(path):
        return f"{os.path.realpath(path)}:{function}"
    return os.path.realpath(name) if os.path.exists(name) else name


def check_held_out(judge: RecipeJudge, held_out: RecipeJudge, model: str) -> None:
    """Refuse a held-out judge that the training sees.

    Args:
        judge: The training's judge.
        held_out: The held-out one.
        model: The policy that the first round starts from.

    Raises:
        UserError: It is the policy, or made of something that the other is made of, too.
    """
    if held_out.is_policy:
        raise UserError(f"{held_out.place} is the policy itself, which is trained; name another judge")
    shared = judge.sources(model) & held_out.sources(model)
    if shared:
        raise UserError(
            f"{held_out.place} has {min(shared)}, which judges the training's pairs, too; name a judge that the "
            "training never sees"
        )


class StoredJudge:
    """A judge whose judgements are kept, so that no pair is judged twice.

    Args:
        name: Its name.
        judge: The judge.
        parts: Keeps judgements, a block at a time.
        size: Pairs of a block.
        progress: Receiver of progress.
        label: What it is shown.

    Attributes:
        judgements: All that were given or found.
    """

    def __init__(self, name: str, judge: Judge, parts: Parts, size: int, progress: Progress, label: str) -> None:
        self.name, self.judge, self.parts, self.size = name, judge, parts, size
        self.progress, self.label = progress, label
        self.judgements: list[Judgement] = []

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """Judge `[N]` pairs; see `Judge`."""
        judged: list[Judgement] = []
        with self.progress.task(self.label, len(prompts)) as advance:
            for start in range(0, len(prompts), self.size):
                block = [list(side[start : start + self.size]) for side in (prompts, firsts, seconds)]
                found = self.parts.get([self.name, self.label, *block], lambda block=block: self._compute(*block))
                judged += [
                    Judgement(preference, None if orders is None else (orders[0], orders[1]))
                    for preference, orders in found
                ]
                advance(len(judged), "")
        self.judgements += judged
        return judged

    def _compute(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Any]:
        return [[each.preference, each.orders] for each in self.judge.compare(prompts, firsts, seconds)]

    def figures(self) -> dict[str, Any]:
        """Counts "judgements", "no_opinion", "ties" and "flipped", the latter with shares of those with an opinion."""
        labels = [each.label for each in self.judgements if each.preference is not None]
        ties, flipped = labels.count(TIE), sum(each.flipped for each in self.judgements)
        count = len(labels) or float("nan")
        return {
            "judgements": len(self.judgements),
            "no_opinion": len(self.judgements) - len(labels),
            "ties": ties,
            "tie_share": ties / count,
            "flipped": flipped,
            "flip_share": flipped / count,
        }


def outcomes(judgements: Sequence[Judgement]) -> list[float]:
    """1 where the first response wins, 0 where the second does, 1/2 for a tie or without opinion."""
    return [TIE if each.label is None else each.label for each in judgements]
