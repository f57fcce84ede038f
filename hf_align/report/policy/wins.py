"""Sections on whose responses are better: win rates, scores, the prompts that differ most, parts of the data."""

from __future__ import annotations

from hf_align.report.figures import Metrics, absent, decimal, percent, plain, share
from hf_align.report.policy.compared import EVEN, gain, grade_of_share, label_of, lead, sentences, worst
from hf_align.report.sections import Content, Grade, Table

FEWEST = 10
"""Fewest prompts of a part of the data that is graded."""


def win_rate(figures: Metrics, facts: Metrics) -> Content:
    """How often each policy's response beats the reference's, by the first judge and by the others."""
    reference, policies = label_of(facts["reference"], facts), figures["policies"]
    means = {"good": "more often than not", "bad": "less often than not", "fair": "no clear difference", "": ""}

    def say(label: str, each: Metrics) -> str:
        clear = means[grade_of_share(each["win_rate_interval"])]
        return f"{label} beats {reference} in {percent(each['win_rate'])} of the responses{clear and f', {clear}'}."

    rows = [
        [label_of(name, facts), share(each, "win_rate"), *(f"{each[key]:,}" for key in ("wins", "ties", "losses"))]
        for name, each in policies.items()
    ]
    tables = [Table(("", "win rate, 95% interval", "wins", "ties", "losses"), rows)]
    if figures["others"]:
        tables.append(_by_judge(figures["others"], facts, "win_rate", "Win rates by other judges"))
    return Content(
        sentences(figures, facts, say),
        worst(grade_of_share(each["win_rate_interval"]) for each in policies.values()),
        lead(figures, facts, lambda each: share(each, "win_rate")),
        tables,
        f"Judged by {facts['judge']}: {_how(facts)} Intervals: 95%, bootstrap over {facts.get('units', 0):,} prompts.",
    )


def length_controlled(figures: Metrics, facts: Metrics) -> Content:
    """The win rate if both responses were equally long."""
    policies = figures["policies"]

    def say(label: str, each: Metrics) -> str:
        if absent(each["length_controlled"]):
            return f"All responses of {label} are longer or shorter by the same, so length can't be taken out."
        side = "longer" if each["mean_longer"] >= 0 else "shorter"
        return (
            f"At equal length {label} would win {percent(each['length_controlled'])}; its responses are "
            f"{abs(each['mean_longer']):.0f} characters {side}."
        )

    rows = [
        [
            label_of(name, facts),
            share(each, "length_controlled"),
            plain(each, "length_weight"),
            decimal(each["mean_longer"], 1, sign=True),
        ]
        for name, each in policies.items()
    ]
    tables = [Table(("", "win rate at equal length", "weight of length", "longer by"), rows)]
    if figures["others"]:
        tables.append(_by_judge(figures["others"], facts, "length_controlled", "At equal length, by other judges"))
    return Content(
        sentences(figures, facts, say),
        worst(grade_of_share(each["length_controlled_interval"]) for each in policies.values()),
        lead(figures, facts, lambda each: share(each, "length_controlled")),
        tables,
        "Logistic regression of the win on the difference of lengths in characters, P(win) = sigmoid(a + b tanh(d / "
        "sd(d))), read at d = 0 (AlpacaEval 2: Dubois et al., 2024; without its term for difficult instructions).",
    )


def scores(figures: Metrics, facts: Metrics) -> Content:
    """Mean scores, and each policy's gain over the reference on the same prompts."""
    policies, reference = figures["policies"], facts["reference"]
    gains = {name: each for name, each in policies.items() if name != reference}

    def say(label: str, each: Metrics) -> str:
        return f"{label} scores {gain(each, 'gain')} against {label_of(reference, facts)} on the same prompts."

    rows = [[label_of(name, facts), plain(each, "score", 3), gain(each, "gain", 3)] for name, each in policies.items()]
    only = next(iter(policies.values()))
    return Content(
        sentences(figures, facts, say) or f"The mean score is {plain(only, 'score')}.",
        worst(grade_of_share(each["gain_interval"], 0) for each in gains.values()),
        lead(figures, facts, lambda each: gain(each, "gain")),
        [Table(("", "score, 95% interval", "gain, paired"), rows)],
        f"Scores by {facts['judge']}"
        + (
            ": the probability that a response is better than the reference's, which has 1/2."
            if facts["judge"] in facts.get("pairs", {})
            else "."
        ),
    )


def best_and_worst(figures: Metrics, facts: Metrics) -> Content:
    """How many prompts there are to read: those where policy and reference differ most."""
    count = sum(len(rows) for lists in figures.values() for rows in lists.values())
    return Content(
        f"Prompts to which {facts['judge']} likes a policy's response most, and least, compared with that of "
        f"{label_of(facts['reference'], facts)}: read them, since no figure tells what the difference is."
        if count
        else "The judge likes no response more or less than the reference's.",
        "",
        f"{count} prompts",
    )


def domains(figures: Metrics, facts: Metrics) -> Content:
    """Win rate and gain in each part of the data, graded by the lowest."""
    rows: list[list[str]] = []
    grades: list[Grade] = []
    lowest: list[tuple[float, str, Metrics]] = []
    for part, each in figures.items():
        for name, values in each["policies"].items():
            rows.append(
                [
                    f"{part}: {label_of(name, facts)}",
                    share(values, "win_rate"),
                    gain(values, "gain", 3),
                    f"{each['prompts']:,}",
                ]
            )
            if each["prompts"] >= FEWEST:
                grade = grade_of_share(values["win_rate_interval"])
                grades.append("bad" if grade == "bad" else "good" if values["win_rate"] >= EVEN else "fair")
                lowest.append((values["win_rate"], f"{label_of(name, facts)} in {part}", values))
    if not lowest:
        said, figure = f"No part has {FEWEST} prompts.", ""
    else:
        _, where, values = min(lowest, key=lambda entry: entry[0])
        said = f"The lowest win rate is that of {where}: {percent(values['win_rate'])}."
        figure = share(values, "win_rate")
    return Content(
        said,
        worst(grades),
        figure,
        [Table(("", "win rate, 95% interval", "gain, paired", "prompts"), rows)],
        f"Parts with fewer than {FEWEST} prompts are not graded.",
    )


def _by_judge(others: Metrics, facts: Metrics, name: str, title: str) -> Table:
    rows = [
        [f"{judge}: {label_of(policy, facts)}", share(each, name)]
        for judge, by_policy in others.items()
        for policy, each in by_policy.items()
    ]
    return Table(("", "95% interval"), rows, title)


def _how(facts: Metrics) -> str:
    if facts["judge"] not in facts.get("pairs", {}):
        return "the higher score wins, equal scores count half."
    return (
        "it compares each response with the reference's; ties count half, and so do choices that change with the order."
    )
