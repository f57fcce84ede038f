"""What comes of both halves: rows as the trainers read them, and every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_align.collators.tools import template_columns
from hf_align.feedback.collection.writers import Text
from hf_align.feedback.constitution.compare import Compared, Comparisons
from hf_align.feedback.constitution.config import ConstitutionConfig
from hf_align.feedback.constitution.revise import Revised, Step
from hf_align.feedback.records import TIE

Row = dict[str, Any]
EVEN = 1e-9
"""Rounding of a preference."""


@dataclass
class Rows:
    """Rows by file.

    Attributes:
        sft: A prompt and its final response each.
        preferences: Pairs, the response that is more likely better as chosen.
        revisions: Pairs of a final response over the first one.
        steps: Everything that was written, asked and judged.
        left_out: What there is no row of, by reason.
    """

    sft: list[Row] = field(default_factory=list)
    preferences: list[Row] = field(default_factory=list)
    revisions: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def make_rows(
    revised: Sequence[Revised],
    compared: Comparisons,
    config: ConstitutionConfig,
    *,
    model: str,
    preference_model: str,
    judge: str | None,
) -> Rows:
    """Rows of both halves.

    Args:
        revised: The supervised half.
        compared: The preference half.
        config: Options.
        model: Name of who wrote the supervised half.
        preference_model: Name of who wrote the responses to compare.
        judge: Name of who judged.
    """
    rows = Rows(left_out=Counter({"prompts without two different responses": compared.alike}))
    for each in revised:
        rows.steps += _steps_of(each, config.seed, model)
        if not each.final.strip():
            rows.left_out["empty responses"] += 1
            continue
        rows.sft.append(_demonstration(each))
        if config.revision_pairs:
            _add_revision_pair(rows, each, config)
    for id, texts in compared.responses.items():
        rows.steps += [_text_step("preference", id, "response", text, preference_model, config.seed) for text in texts]
    for pair in compared.pairs:
        rows.steps += _votes_of(pair, config.seed, judge)
        preference = pair.preference
        if preference is None:
            rows.left_out["pairs without an opinion"] += 1
        elif abs(preference - TIE) < EVEN and config.ties == "drop":
            rows.left_out["tied pairs"] += 1
        else:
            rows.preferences.append(_pair_of(pair, preference, config))
    return rows


def _demonstration(each: Revised) -> Row:
    changed = [step for step in each.steps if step.outcome == "revised"]
    return {
        **{"prompt": each.prompt.content, "completion": _turn(each.final)},
        **{"revised": bool(changed), "principles": [step.principle.id for step in changed]},
        **{"prompt_id": each.prompt.id, **template_columns(each.prompt.columns)},
    }


def _add_revision_pair(rows: Rows, each: Revised, config: ConstitutionConfig) -> None:
    if each.final.split() == each.initial.text.split():
        return
    if any(step.refuses and step.outcome == "revised" for step in each.steps):
        rows.left_out["revision pairs that end in a refusal"] += 1
        return
    label = {"preference": 1.0} if config.labels == "soft" else {"margin": 1.0}
    rows.revisions.append(
        {
            **{"prompt": each.prompt.content, "chosen": _turn(each.final), "rejected": _turn(each.initial.text)},
            **{**label, "source": "revision", "prompt_id": each.prompt.id, **template_columns(each.prompt.columns)},
        }
    )


def _pair_of(pair: Compared, preference: float, config: ConstitutionConfig) -> Row:
    forward = preference >= TIE
    sides = (pair.first, pair.second) if forward else (pair.second, pair.first)
    strength = 2 * abs(preference - TIE)
    soft = {"preference": _turned(preference, forward), "strength": strength}
    return {
        **{"prompt": pair.prompt.content, "chosen": _turn(sides[0].text), "rejected": _turn(sides[1].text)},
        **(soft if config.labels == "soft" else {"margin": strength}),
        "by_principle": [
            {
                "principle": None if vote.principle is None else vote.principle.id,
                "preference": _turned(vote.judgement.preference, forward),
                **{"flipped": vote.judgement.flipped, "weight": vote.weight},
            }
            for vote in pair.votes
        ],
        **{"source": "votes", "prompt_id": pair.prompt.id, **template_columns(pair.prompt.columns)},
    }


def _steps_of(each: Revised, seed: int, model: str) -> Iterator[Row]:
    """The first response, then check, critique and revision by each principle."""
    id = each.prompt.id
    yield _text_step("sft", id, "initial", each.initial, model, seed)
    for number, step in enumerate(each.steps, start=1):
        its = {"step": number, "principle": step.principle.id}
        if step.broken is not None:
            yield {**_head("sft", id, "check"), **its, "broken": step.broken, "model": model, "seed": seed}
        for kind, text in (("critique", step.critique), ("revision", step.revision)):
            if text is not None:
                yield _text_step("sft", id, kind, text, model, seed) | its | _remarks(kind, step)
        yield {**_head("sft", id, "outcome"), **its, "outcome": step.outcome}


def _remarks(kind: str, step: Step) -> Row:
    return {"shorter": step.shorter, "refuses": step.refuses} if kind == "revision" else {}


def _votes_of(pair: Compared, seed: int, judge: str | None) -> Iterator[Row]:
    for vote in pair.votes:
        yield {
            **_head("preference", pair.prompt.id, "vote"),
            "principle": None if vote.principle is None else vote.principle.id,
            **{"first": pair.first.text, "second": pair.second.text, "preference": vote.judgement.preference},
            "orders": None if vote.judgement.orders is None else list(vote.judgement.orders),
            **{"model": judge, "seed": seed},
        }


def _text_step(half: str, id: str, kind: str, text: Text, model: str, seed: int) -> Row:
    settings: Mapping[str, Any] = text.settings
    return {**_head(half, id, kind), "text": text.text, "model": model, "seed": seed, "settings": dict(settings)}


def _head(half: str, id: str, kind: str) -> Row:
    return {"half": half, "prompt_id": id, "kind": kind}


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _turned(preference: float | None, forward: bool) -> float | None:
    return preference if preference is None or forward else 1 - preference
