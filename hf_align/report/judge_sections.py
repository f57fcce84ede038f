"""The sections of a report on a judge, and the answer on top of it."""

from __future__ import annotations

from hf_align.report.figures import Metrics, absent, decimal, percent, plain, points, share
from hf_align.report.reward.verdict import LAYOUTS
from hf_align.report.sections import Content, Grade, Kind, Section, Table, build_sections
from hf_align.report.verdict import Verdict

GOOD_FLIPS, FAIR_FLIPS = 0.15, 0.35
"""Share of choices that change with the order. GPT-4's was .13 in FastChat's published judgements, and .35 in MT-Bench
(Zheng et al., 2023, arXiv:2306.05685)."""
GOOD_POSITION, AFTER = 0.05, 0.01
"""Position effect before, and after both orders became one."""
FAIR_LENGTH = 0.05
"""How much more often than people a judge may prefer the longer response."""
FAIR_ECE = 0.1
UNITS = {"ratings": "points", "scores": "points", "margin": "of margin", "votes": "of shares of votes"}
FACTS = ("judge", "data", "rows", "versions", "command")


def judge_sections(metrics: Metrics, facts: Metrics) -> list[Section]:
    """All sections, in the report's order."""
    return build_sections(SECTIONS, metrics, metrics, facts.get("missing", {}))


def judge_verdict(metrics: Metrics) -> Verdict:
    """The answer: fit or not fit, and why."""
    fit, agreement = metrics["fit"]["fit"], metrics["agreement"]
    reasons = "; ".join(metrics["fit"]["reasons"])
    if fit is None:
        return Verdict("", f"Unknown: {reasons}.", "")
    beside = "" if absent(agreement["people"]) else f", single people on {share(agreement, 'people')}"
    said = f"It agrees with people on {share(agreement, 'judge')} of {agreement['pairs']:,} pairs{beside}."
    if not fit:
        return Verdict("bad", f"Not fit: {reasons}.", said)
    return Verdict("good", "Fit to judge pairs like these.", f"{said} The sections below say what sways it.")


def shown_facts(facts: Metrics) -> list[tuple[str, str]]:
    """(label, text) of the facts that stand above the sections."""
    layout = LAYOUTS.get(facts["layout"], facts["layout"])
    shown = dict(facts) | {
        "rows": f"{layout}: {facts['rows']:,} rows, {facts['prompts']:,} prompts, {facts['pairs']:,} pairs asked about",
        "versions": ", ".join(f"{name} {number}" for name, number in facts["versions"].items()),
    }
    return [(key, str(shown[key])) for key in FACTS if shown.get(key)]


def gap_label(part: Metrics) -> str:
    """A bucket's name, such as "1 to 2"."""
    low, high = part["low"], part["high"]
    if high is None:
        return f"above {low:g}"
    return f"up to {high:g}" if not low else f"{low:g} to {high:g}"


def _agreement(figures: Metrics, metrics: Metrics) -> Content:
    people = not absent(figures["people"])
    sentence = f"It prefers what people do in {percent(figures['judge'])} of {figures['pairs']:,} decided pairs"
    grade: Grade = "fair"
    if people:
        high = figures["lead_interval"][1]
        as_good = not absent(high) and high >= 0
        grade = "good" if as_good else "fair"
        sentence += f"; a single vote agrees with the others together in {percent(figures['people'])}"
        sentence += ", no clear difference" if as_good and figures["lead"] < 0 else ""
    if metrics["fit"]["fit"] is not True:
        grade = "bad" if metrics["fit"]["fit"] is False else ""
    parts = [*figures["by_gap"], figures]
    columns = ["gap", "pairs", "judge, 95% interval", *(["people", "judge - people"] if people else [])]
    rows = [
        [
            "all" if part is figures else gap_label(part),
            f"{part['pairs']:,}",
            share(part, "judge"),
            *([share(part, "people"), points(part, "lead")] if people else []),
        ]
        for part in parts
    ]
    title = f"By how far apart people find them, in {UNITS[figures['gap']]}" if figures["gap"] else "All pairs"
    note = "A tie counts half. " + (
        "People: the share of single votes for what people prefer together, each vote being part of that."
        if people
        else "Rows have no single votes, so people's own agreement isn't known."
    )
    return Content(
        f"{sentence}.",
        grade,
        share(figures, "judge"),
        [Table(columns, rows, title)],
        note,
    )


def _verdicts(figures: Metrics, metrics: Metrics) -> Content:
    flips = figures["flips"]
    sentence = f"It has an opinion on {percent(figures['opinions'])} of {figures['pairs']:,} pairs; "
    sentence += f"{percent(figures['ties'])} of these are ties"
    grade: Grade = "good"
    if flips is None:
        sentence += ". It sees no order."
    elif absent(flips):
        sentence, grade = f"{sentence}.", ""
    else:
        sentence += f". Its choice changes with the order in {percent(flips)}, which counts as a tie."
        grade = "good" if flips <= GOOD_FLIPS else "fair" if flips <= FAIR_FLIPS else "bad"
    names = {"opinions": "has an opinion", "ties": "tie", "flips": "choice changes with the order"}
    rows = [[label, share(figures, name)] for name, label in names.items() if figures[name] is not None]
    return Content(
        sentence,
        grade,
        share(figures, "ties"),
        [Table(("", "share, 95% interval"), rows)],
    )


def _position(figures: Metrics, metrics: Metrics) -> Content:
    after = figures["effect_after"]
    left = "" if after is None else f" {decimal(after, 3, sign=True)} is left in its judgements."
    rows = []
    grade: Grade = "good"
    if figures["sees_order"]:
        effect = figures["effect"]
        sentence = f"In {percent(figures['first_shown'])} of its answers it goes with the response shown first.{left}"
        grade = "" if absent(effect) else "good" if abs(effect) <= GOOD_POSITION else "fair"
        rows += [["chooses the response shown first", share(figures, "first_shown"), f"{figures['pairs']:,}"]]
        rows += [["mean probability of it", share(figures, "probability"), f"{figures['pairs']:,}"]]
    else:
        sentence = f"It sees no order: each response is judged by itself.{left}"
    if after is not None:
        rows.append(
            ["judgement for the response given first", share(figures, "first_given"), f"{figures['pairs_again']:,}"]
        )
        grade = grade if abs(after) <= AFTER else "bad"
    return Content(
        sentence,
        grade,
        "" if figures["effect"] is None else decimal(figures["effect"], 3, sign=True),
        [Table(("", "share, 95% interval", "pairs"), rows)] if rows else (),
        "50% is no effect. What is left after both orders became one judgement is measured by giving pairs again the "
        "other way round.",
    )


def _length(figures: Metrics, metrics: Metrics) -> Content:
    low, high = figures["weight_interval"]
    sentence = (
        f"It prefers the longer response in {percent(figures['judge'])}, people in {percent(figures['people'])} of "
        f"{figures['pairs']:,} pairs of unequal lengths."
    )
    grade: Grade = ""
    if not absent(low) and not absent(high):
        pull = "long" if low > 0 else "short" if high < 0 else ""
        sentence += f" Beyond what people prefer, it leans to {pull} ones." if pull else " No pull of length is clear."
        grade = "good" if not pull else "fair" if abs(figures["excess"]) <= FAIR_LENGTH else "bad"
    longer, shorter = figures["people_longer"], figures["people_shorter"]
    rows = [
        ["judge prefers the longer", share(figures, "judge"), f"{figures['pairs']:,}"],
        ["people prefer the longer", share(figures, "people"), f"{figures['pairs']:,}"],
        ["judge - people, points", points(figures, "excess"), f"{figures['pairs']:,}"],
        ["agreement where people prefer the longer", share(longer, "agreement"), f"{longer['pairs']:,}"],
        ["agreement where people prefer the shorter", share(shorter, "agreement"), f"{shorter['pairs']:,}"],
        ["agreement at equal length", share(figures, "equal_length"), f"{figures['pairs']:,}"],
        ["pull of length b", plain(figures, "weight"), f"{figures['pairs']:,}"],
    ]
    return Content(
        sentence,
        grade,
        f"b = {plain(figures, 'weight')}",
        [Table(("", "95% interval", "pairs"), rows)],
        "Logistic regression P(agreement) = sigmoid(a + b tanh(d / sd(d))), d the characters by which people's choice "
        "is longer (the form of AlpacaEval 2: Dubois et al., 2024): b is 0 for a judge that length doesn't sway.",
    )


def _calibration(figures: Metrics, metrics: Metrics) -> Content:
    chance = f"a judge that is right about every probability has {decimal(figures['ece_floor'], 3)} by chance"
    grade: Grade = ""
    if figures["soft"]:
        within = figures["ece"] <= figures["ece_floor_high"]
        grade = "good" if within else "fair" if figures["ece"] <= FAIR_ECE else "bad"
        sentence = f"Its probabilities are {decimal(figures['ece'], 3)} away from shares of votes; {chance}."
    else:
        sentence = f"It names sides and ties, no probabilities: {decimal(figures['ece'], 3)} away from shares of votes."
    rows = [
        [f"{part['low']:.2f} to {part['high']:.2f}", f"{part['pairs']:,}", percent(part["observed"])]
        for part in figures["bins"]
    ]
    return Content(
        sentence,
        grade,
        f"ECE {decimal(figures['ece'], 3)}",
        [Table(("probability that it says", "pairs", "share of votes"), rows)],
        "Pairs count in both orders.",
    )


def _self_preference(figures: Metrics, metrics: Metrics) -> Content:
    low = figures["excess_interval"][0]
    clear = not absent(low) and low > 0
    rows = [
        ["judge for its own response", share(figures, "judge")],
        ["people for that response", share(figures, "people")],
        ["judge - people, points", points(figures, "excess")],
    ]
    return Content(
        f"It prefers its own response in {percent(figures['judge'])} of {figures['pairs']:,} pairs, people in "
        f"{percent(figures['people'])}{': it favours itself' if clear else ''}.",
        "bad" if clear else "good",
        points(figures, "excess"),
        [Table(("", "95% interval"), rows)],
    )


SECTIONS = {
    "agreement": Kind("Agreement with people", _agreement),
    "verdicts": Kind("Opinions, ties and flips", _verdicts),
    "position": Kind("Position effect", _position),
    "length": Kind("Length effect", _length),
    "calibration": Kind("Calibration", _calibration),
    "self_preference": Kind("Self-preference", _self_preference),
}
