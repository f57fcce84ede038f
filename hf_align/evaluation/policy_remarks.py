"""What a reader has to know before believing a figure of a report on policies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hf_align.evaluation.policy_inputs import Asked
from hf_align.evaluation.remarks import EQUAL_SHARE
from hf_align.evaluation.writing import Written
from hf_align.model_cards.facts import CardFacts
from hf_align.model_cards.files import FACTS
from hf_align.models.sources import find_file, load_tokenizer, plain_folder
from hf_align.report.remarks import FEW_UNITS, Remark, few_units

CUT_SHARE = 0.1
"""Share of responses cut by the length limit that is worth a remark."""
FLIPPED_SHARE = 0.1
"""Share of pairs on which a judge contradicts itself that is."""


def training_rewards(name: str) -> dict[str, list[str]]:
    """The rewards that a policy was trained on, as far as its card's facts record them, with keys of their heads."""
    file = find_file(plain_folder(name), FACTS)
    try:
        facts = {} if file is None else json.loads(file.read_text(encoding="utf-8"))["facts"]
    except (ValueError, KeyError):  # written by something else
        return {}
    return CardFacts.from_dict(facts).rewards if {"kind", "name"} <= facts.keys() else {}


def remarks_on_judges(labels: Mapping[str, str], judges: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[Remark]:
    """Remarks on judges that are the reward that a policy was trained on.

    Args:
        labels: What the policies are called, by name.
        judges: For each judge's name its parts' names, with keys of their heads.
    """
    for judge, parts in judges.items():
        keys = {key for each in parts.values() for key in each}
        for name, label in labels.items():
            rewards = training_rewards(name)
            if keys & {key for each in rewards.values() for key in each}:
                yield Remark(
                    "judge_is_reward",
                    f"{judge} is the reward that {label} was trained on: a policy learns its weaknesses, too, so what "
                    "it prefers is no evidence that responses are better. Use another judge.",
                )
            elif set(parts) & set(rewards):
                yield Remark(
                    "judge_may_be_reward",
                    f"{label} was trained on a reward called {', '.join(sorted(set(parts) & set(rewards)))}, as "
                    f"{judge} is: if they are the same, its preference is no evidence.",
                )


def remarks_on_policies(
    asked: Asked,
    written: Mapping[str, Written],
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Iterator[Remark]:
    """Remarks on responses and scores, those that void most first.

    Args:
        asked: The prompts.
        written: What the policies wrote.
        scores: By judge and policy.
        metrics: The report's metrics.
        facts: Its facts.
    """
    reference, labels = facts["reference"], facts["labels"]
    for number, (judge, by_policy) in enumerate(scores.items()):
        values = np.concatenate([np.asarray(each, dtype=float) for each in by_policy.values()])
        if not np.ptp(values):
            yield Remark(
                "another_constant" if number else "constant_scores",  # the first judge decides the sections
                f"{judge} gives every response the same score ({values[0]:g}), so it judges nothing.",
            )
    yield from _on_pairs(facts["pairs"])
    yield from _on_ties(metrics, facts)
    for name, its in written.items():
        if name != reference and its.samples == written[reference].samples:
            yield Remark(
                "identical",
                f"{labels[name]} writes exactly what {labels[reference]} writes: are these the same weights?",
            )
    cut = {name: 1 - float(np.mean([sample.ended for sample in its.samples])) for name, its in written.items()}
    if long := [f"{100 * share:.0f}% of {labels[name]}" for name, share in cut.items() if share > CUT_SHARE]:
        yield Remark(
            "cut",
            f"Responses cut at {facts['max_new_tokens']} tokens: {', '.join(long)}. Judge and lengths see only their "
            "beginnings; raise max_new_tokens.",
        )
    if facts["units"] < FEW_UNITS:
        yield few_units(facts["units"], "prompts")
    yield from _on_templates(asked, labels)


def _on_pairs(pairs: Mapping[str, Mapping[str, int]]) -> Iterator[Remark]:
    for judge, counts in pairs.items():
        if counts["flipped"] > FLIPPED_SHARE * counts["judged"]:
            yield Remark(
                "flips",
                f"{judge} changed its choice with the order of the responses in {counts['flipped']} of "
                f"{counts['judged']} pairs, which count half: there it judged positions.",
            )
        if counts["no_opinion"]:
            yield Remark(
                "no_opinion",
                f"{judge} had no opinion on {counts['no_opinion']} of {counts['judged']} pairs, which count half.",
            )


def _on_ties(metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[Remark]:
    if metrics["win_rate"] is None:
        return
    labels, reference = facts["labels"], facts["labels"][facts["reference"]]
    for name, each in metrics["win_rate"]["policies"].items():
        responses = each["wins"] + each["ties"] + each["losses"]
        if each["ties"] > EQUAL_SHARE * responses and each["wins"] + each["losses"]:
            yield Remark(
                "ties",
                f"{each['ties']} of {responses} responses of {labels[name]} score as the reference's and count half.",
            )
        control = metrics["length_controlled"]["policies"][name]
        if not control["within"]:
            longer = "longer" if control["mean_longer"] > 0 else "shorter"
            yield Remark(
                "extrapolated",
                f"Every response of {labels[name]} is {longer} than that of {reference}, so the win rate at equal "
                "length is extrapolated.",
            )


def _on_templates(asked: Asked, labels: Mapping[str, str]) -> Iterator[Remark]:
    templates = {label: load_tokenizer(name).chat_template for name, label in labels.items()}
    messages = [isinstance(prompt, list) for prompt in asked.prompts]
    if any(messages) and len({str(template) for template in templates.values()}) > 1:
        yield Remark(
            "templates", "The policies have different chat templates: each got the prompts in the form of its own."
        )
    with_template = [name for name, template in templates.items() if template]
    if with_template and not all(messages):
        yield Remark(
            "template_unused",
            f"Prompts are plain text, so the chat template of {with_template[0]} isn't used: right for continuing a "
            "text; for a policy trained on conversations, give messages.",
        )
