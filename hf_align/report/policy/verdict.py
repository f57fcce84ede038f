"""Whether policies are better than the reference, from the sections of their report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_align.report.figures import Metrics, absent, decimal, percent
from hf_align.report.policy.compared import grade_of_share, label_of
from hf_align.report.sections import Grade, Section
from hf_align.report.verdict import Verdict, names_by_grade, say_grades

TO_READ = ("best_and_worst",)
"""Sections that are read, not graded."""
NEVER_GRADED = (*TO_READ, "kl")
FACTS = ("data", "judge", "quantization", "processor", "versions", "command")
"""Facts shown above the sections, after the policies."""


def shown_facts(facts: Metrics) -> list[tuple[str, str]]:
    """(label, text) of the facts that stand above the sections."""
    shown = dict(facts) | {"judge": ", ".join(facts.get("judges") or [facts.get("judge", "")])}
    if facts.get("versions"):
        shown["versions"] = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    policies = [f"{name} (the reference)" if name == facts["reference"] else name for name in facts["policies"]]
    prompts = f"{facts['prompts']:,}, one response of up to {facts['max_new_tokens']} tokens each"
    rest = [(key, str(shown[key])) for key in FACTS if shown.get(key)]
    return [("policies", ", ".join(policies)), ("prompts", prompts), *rest]


def policy_verdict(metrics: Metrics, facts: Metrics, sections: Sequence[Section], remarks: Sequence[Any]) -> Verdict:
    """Sum up the sections.

    Args:
        metrics: The report's metrics.
        facts: Its facts.
        sections: Its sections.
        remarks: (kind, sentence) pairs.
    """
    said = say_grades(sections, NEVER_GRADED)
    rates = (metrics.get("win_rate") or {"policies": {}})["policies"]
    if not rates:
        return Verdict("", "Nothing to compare: there is one policy.", said)
    reference, kinds = label_of(facts["reference"], facts), {kind for kind, _ in remarks}
    if "constant_scores" in kinds:
        return Verdict("bad", "Unknown: the judge scores all responses alike.", said)
    by_grade: dict[Grade, list[str]] = {}
    for name, each in rates.items():
        by_grade.setdefault(grade_of_share(each["win_rate_interval"]), []).append(label_of(name, facts))
    words = {"good": "better than", "bad": "worse than", "fair": "neither clearly better nor worse than"}
    words |= {"": "too seldom compared with"}
    title = "; ".join(f"{_listed(by_grade[grade])} {words[grade]} {reference}" for grade in words if grade in by_grade)
    title = f"By {facts['judge']}: {title}."
    if "judge_is_reward" in kinds:
        title += " But that is the reward that was trained on."
    failed = names_by_grade(sections)["bad"]
    grade: Grade = "fair"
    if set(by_grade) == {"good"} and not failed and "judge_is_reward" not in kinds:
        grade = "good"
    elif "bad" in by_grade and "good" not in by_grade:
        grade = "bad"
    return Verdict(grade, title, " ".join([*(_summary(name, metrics, facts) for name in rates), said]))


def _listed(labels: Sequence[str]) -> str:
    return f"{', '.join(labels)} {'is' if len(labels) == 1 else 'are'}"


def _summary(name: str, metrics: Metrics, facts: Metrics) -> str:
    """A policy's main figures in one sentence."""
    rate, control = (metrics[key]["policies"][name] for key in ("win_rate", "length_controlled"))
    parts = [f"{label_of(name, facts)} wins {percent(rate['win_rate'])}"]
    if not absent(control["length_controlled"]):
        parts[0] += f" ({percent(control['length_controlled'])} at equal length)"
    kl = metrics["kl"]["policies"][name]
    parts += [] if "why" in kl else [f"is {decimal(kl['k1'])} nats a response away"]
    if lost := (metrics.get("lost_ability") or {"policies": {}})["policies"].get(name):
        parts.append(f"text by people costs it {decimal(lost['increase'], 3, sign=True)} nats a {lost['unit']}")
    return ", ".join(parts) + "."
