"""The sections of a report on policies: each with a figure, a sentence that says whether it is good, and tables.

The terminal and the page show the same sections. A section's grade is that of the policy that does worst in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hf_align.report.figures import Metrics, absent, decimal, ends, percent, plain, share
from hf_align.report.sections import Content, Grade, Kind, Section, Table, build_sections

EVEN = 0.5
FEWEST = 10
"""Fewest prompts of a part of the data that is graded."""
GOOD_VARIETY, FAIR_VARIETY = 0.05, 0.15
"""Loss of distinct-2, or rise of self-repetition."""
GOOD_LENGTH, GOOD_ENDED = 0.25, 0.1
"""Change of the mean length as a share of it, and fall of the share of ended responses."""
GOOD_LOSS, FAIR_LOSS = 0.02, 0.1
"""Rise of the negative log-likelihood of human text, nats per token; a fourth of it per byte."""
ORDER: Sequence[Grade] = ("bad", "fair", "good", "")


def policy_sections(metrics: Metrics, facts: Metrics) -> list[Section]:
    """All sections, in the report's order."""
    return build_sections(SECTIONS, metrics, facts, facts.get("missing", {}))


def label_of(name: str, facts: Metrics) -> str:
    """What tables and sentences call a policy."""
    return facts.get("labels", {}).get(name, name)


def grade_of_share(interval: Sequence[float | None] | None, even: float = EVEN) -> Grade:
    """Whether a 95% interval lies above (good), below (bad) or around what no difference gives; "" without one."""
    if interval is None or any(map(absent, interval)):
        return ""
    low, high = (float(end or 0) for end in interval)
    return "good" if low > even else "bad" if high < even else "fair"


def _worst(grades: Iterable[Grade]) -> Grade:
    given = set(grades) or {""}
    return next(grade for grade in ORDER if grade in given)


def _sentences(figures: Metrics, facts: Metrics, say: Callable[[str, Metrics], str]) -> str:
    """One sentence for each compared policy."""
    names = [name for name in figures["policies"] if name != facts["reference"]]
    return " ".join(say(label_of(name, facts), figures["policies"][name]) for name in names)


def _lead(figures: Metrics, facts: Metrics, show: Callable[[Metrics], str]) -> str:
    """The figure beside the title: that of the only compared policy."""
    others = [each for name, each in figures["policies"].items() if name != facts["reference"]]
    return show(others[0]) if len(others) == 1 else ""


def _win_rate(figures: Metrics, facts: Metrics) -> Content:
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
        _sentences(figures, facts, say),
        _worst(grade_of_share(each["win_rate_interval"]) for each in policies.values()),
        _lead(figures, facts, lambda each: share(each, "win_rate")),
        tables,
        f"Judged by {facts['judge']}: {_how(facts)} Intervals: 95%, bootstrap over {facts.get('units', 0):,} prompts.",
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


def _length_controlled(figures: Metrics, facts: Metrics) -> Content:
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
        _sentences(figures, facts, say),
        _worst(grade_of_share(each["length_controlled_interval"]) for each in policies.values()),
        _lead(figures, facts, lambda each: share(each, "length_controlled")),
        tables,
        "Logistic regression of the win on the difference of lengths in characters, P(win) = sigmoid(a + b tanh(d / "
        "sd(d))), read at d = 0 (AlpacaEval 2: Dubois et al., 2024; without its term for difficult instructions).",
    )


def _scores(figures: Metrics, facts: Metrics) -> Content:
    policies, reference = figures["policies"], facts["reference"]
    gains = {name: each for name, each in policies.items() if name != reference}

    def say(label: str, each: Metrics) -> str:
        return f"{label} scores {_gain(each, 'gain')} against {label_of(reference, facts)} on the same prompts."

    rows = [[label_of(name, facts), plain(each, "score", 3), _gain(each, "gain", 3)] for name, each in policies.items()]
    only = next(iter(policies.values()))
    return Content(
        _sentences(figures, facts, say) or f"The mean score is {plain(only, 'score')}.",
        _worst(grade_of_share(each["gain_interval"], 0) for each in gains.values()),
        _lead(figures, facts, lambda each: _gain(each, "gain")),
        [Table(("", "score, 95% interval", "gain, paired"), rows)],
        f"Scores by {facts['judge']}"
        + (
            ": the probability that a response is better than the reference's, which has 1/2."
            if facts["judge"] in facts.get("pairs", {})
            else "."
        ),
    )


def _gain(each: Metrics, name: str, digits: int = 2) -> str:
    if name not in each:
        return ""
    return f"{decimal(each[name], digits, sign=True)} {ends(each[f'{name}_interval'], 1, digits)}".rstrip()


def _kl(figures: Metrics, facts: Metrics) -> Content:
    reference = label_of(facts["reference"], facts)

    def say(label: str, each: Metrics) -> str:
        if "why" in each:
            return f"{label} has none: {each['why']}."
        distance, per_token = decimal(each["k1"]), decimal(each["per_token"], 3)
        return f"{label} is {distance} nats a response from {reference}, {per_token} a token."

    rows = [
        [label_of(name, facts), plain(each, "k1"), plain(each, "k3"), decimal(each["per_token"], 3)]
        for name, each in figures["policies"].items()
        if "why" not in each
    ]
    tables = [Table(("", "k1, 95% interval", "k3, 95% interval", "k1 a token"), rows)] if rows else []
    return Content(
        _sentences(figures, facts, say),
        "",
        _lead(figures, facts, lambda each: "" if "why" in each else f"{plain(each, 'k1')} nats"),
        tables,
        f"KL(policy || {reference}) of responses of up to {facts['max_new_tokens']} tokens, in nats, estimated on the "
        "policy's own: with r = log-prob under it minus under the reference, k1 sums r over a response's tokens, k3 "
        "exp(-r) - 1 + r; both are unbiased (Schulman, 2020), so far apart means too few responses.",
    )


def _diversity(figures: Metrics, facts: Metrics) -> Content:
    policies, reference = figures["policies"], facts["reference"]
    base = policies[reference]

    def grade(each: Metrics) -> Grade:
        losses = (base["distinct_2"] - each["distinct_2"], each["self_repetition"] - base["self_repetition"])
        worst = max((loss for loss in losses if not absent(loss)), default=None)
        return "" if worst is None else "good" if worst <= GOOD_VARIETY else "fair" if worst <= FAIR_VARIETY else "bad"

    def say(label: str, each: Metrics) -> str:
        return (
            f"{percent(each['distinct_2'], 0)} of the word pairs of {label} are distinct, of "
            f"{label_of(reference, facts)} {percent(base['distinct_2'], 0)}."
        )

    rows = [
        [
            label_of(name, facts),
            *(decimal(each[f"distinct_{n}"], 3) for n in (1, 2, 3)),
            share(each, "self_repetition"),
            f"{each['words']:,}",
        ]
        for name, each in policies.items()
    ]
    return Content(
        _sentences(figures, facts, say) or f"{percent(base['distinct_2'], 0)} of its word pairs are distinct.",
        _worst(grade(each) for name, each in policies.items() if name != reference),
        _lead(figures, facts, lambda each: f"distinct-2 {decimal(each['distinct_2'])}"),
        [Table(("", "distinct-1", "distinct-2", "distinct-3", "self-repetition", "words"), rows)],
        "distinct-n: different n-grams of words among all of a policy's responses (Li et al., 2016); it falls with the "
        "number of words, so compare it at similar ones. Self-repetition: word triples that stood in the same response "
        "before (Welleck et al., 2020).",
    )


def _length(figures: Metrics, facts: Metrics) -> Content:
    policies, reference = figures["policies"], facts["reference"]
    base = policies[reference]

    def grade(each: Metrics) -> Grade:
        if not base["characters"]:
            return ""
        change = abs(each["characters"] / base["characters"] - 1)
        return "good" if change <= GOOD_LENGTH and base["ended"] - each["ended"] <= GOOD_ENDED else "fair"

    def say(label: str, each: Metrics) -> str:
        return (
            f"{label} writes {decimal(each['tokens'], 1)} tokens and ends {percent(each['ended'], 0)} itself, "
            f"{label_of(reference, facts)} {decimal(base['tokens'], 1)} and {percent(base['ended'], 0)}."
        )

    rows = [
        [
            label_of(name, facts),
            plain(each, "tokens", 1),
            _gain(each, "gain", 1),
            decimal(each["characters"], 0),
            share(each, "ended"),
        ]
        for name, each in policies.items()
    ]
    only = f"It writes {decimal(base['tokens'], 1)} tokens on average and ends {percent(base['ended'], 0)} itself."
    return Content(
        _sentences(figures, facts, say) or only,
        _worst(grade(each) for name, each in policies.items() if name != reference),
        _lead(figures, facts, lambda each: f"{_gain(each, 'gain', 1)} tokens"),
        [Table(("", "tokens, 95%", "longer, paired", "characters", "ended"), rows)],
        f"Tokens of the policy's own tokenizer, EOS not counted; the others were cut at {facts['max_new_tokens']}.",
    )


def _lost_ability(figures: Metrics, facts: Metrics) -> Content:
    policies, reference = figures["policies"], facts["reference"]

    def grade(each: Metrics) -> Grade:
        scale = 1 if each["unit"] == "token" else 0.25
        loss = each["increase"] / scale
        return "" if absent(loss) else "good" if loss <= GOOD_LOSS else "fair" if loss <= FAIR_LOSS else "bad"

    def say(label: str, each: Metrics) -> str:
        return (
            f"Text by people costs {label} {_gain(each, 'increase', 3)} nats a {each['unit']} against "
            f"{label_of(reference, facts)}."
        )

    rows = [
        [
            label_of(name, facts),
            plain(each, "nll", 3),
            decimal(each["per_byte"], 3),
            f"{_gain(each, 'increase', 3)} a {each['unit']}" if "increase" in each else "",
        ]
        for name, each in policies.items()
    ]
    only = next(iter(policies.values()))
    cut = f" {figures['cut']} were cut to their first 2,000 characters." if figures["cut"] else ""
    return Content(
        _sentences(figures, facts, say) or f"It predicts text by people with {decimal(only['nll'], 3)} nats a token.",
        _worst(grade(each) for name, each in policies.items() if name != reference),
        _lead(figures, facts, lambda each: f"{_gain(each, 'increase', 3)} nats"),
        [Table(("", "nats a token, 95%", "nats a byte", "increase, paired"), rows)],
        f"Negative log-likelihood of {figures['texts']:,} texts ({figures['source']}) without any prompt, every token "
        f"but the first.{cut} Intervals: bootstrap over texts; increases are paired by text, per byte where the tokens "
        "differ.",
    )


def _best_and_worst(figures: Metrics, facts: Metrics) -> Content:
    count = sum(len(rows) for lists in figures.values() for rows in lists.values())
    return Content(
        f"Prompts to which {facts['judge']} likes a policy's response most, and least, compared with that of "
        f"{label_of(facts['reference'], facts)}: read them, since no figure tells what the difference is."
        if count
        else "The judge likes no response more or less than the reference's.",
        "",
        f"{count} prompts",
    )


def _domains(figures: Metrics, facts: Metrics) -> Content:
    rows: list[list[str]] = []
    grades: list[Grade] = []
    lowest: list[tuple[float, str, Metrics]] = []
    for part, each in figures.items():
        for name, values in each["policies"].items():
            rows.append(
                [
                    f"{part}: {label_of(name, facts)}",
                    share(values, "win_rate"),
                    _gain(values, "gain", 3),
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
        _worst(grades),
        figure,
        [Table(("", "win rate, 95% interval", "gain, paired", "prompts"), rows)],
        f"Parts with fewer than {FEWEST} prompts are not graded.",
    )


SECTIONS = {
    "win_rate": Kind("Win rate", _win_rate),
    "length_controlled": Kind("Win rate at equal length", _length_controlled),
    "scores": Kind("Scores", _scores),
    "kl": Kind("Distance from the reference (KL)", _kl),
    "diversity": Kind("Variety", _diversity),
    "length": Kind("Length", _length),
    "lost_ability": Kind("Lost ability", _lost_ability),
    "best_and_worst": Kind("The best and the worst", _best_and_worst),
    "domains": Kind("Parts of the data", _domains),
}
