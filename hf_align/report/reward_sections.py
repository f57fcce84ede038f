"""The sections of a report on a reward model: each with a figure, a sentence that says whether it is good, and tables.

The terminal and the page show the same sections.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from hf_align.report.figures import (
    Grade,
    Metrics,
    Section,
    Table,
    absent,
    decimal,
    low_end,
    percent,
    plain,
    points,
    share,
)

CHANCE = 0.5
GOOD_ACCURACY, GOOD_TAU = 0.8, 0.6
NEAR_FLOOR = 0.02
"""Calibration error above that of pure chance that still counts as good."""
GOOD_DROP, FAIR_DROP = (0.015, 0.04), (0.03, 0.1)
"""Drop of accuracy under changes that keep the meaning: mean and worst."""
GOOD_EXCESS, FAIR_EXCESS = 0.05, 0.15
"""Correlation of reward and length beyond people's own."""
BEHIND_MEAN = 0.1
"""How far a subset may lie behind the mean of all."""
GOOD_SHARE, FAIR_SHARE = 0.7, 0.3
"""Share of the possible gain that best-of-n reaches."""
TURNED = 0.05
"""Share of its largest gain that best-of-n loses again before it counts as having turned over."""
OF_ENSEMBLES = ("uncertainty",)
"""Sections that a single model doesn't have."""


def sections_of(metrics: Metrics, facts: Metrics) -> list[Section]:
    """All sections, in the report's order."""
    result = []
    for key, (title, build, missing) in SECTIONS.items():
        if key in OF_ENSEMBLES and key not in metrics:
            continue
        figures = metrics.get(key)
        if figures is None or (key == "worst_rows" and not figures):
            reason = facts.get("missing", {}).get(key)
            result.append(Section(key, title, f"Empty: {reason}." if reason else missing, empty=True))
        else:
            result.append(build(figures, facts))
    return result


def benchmark_table(benchmark: Metrics) -> Table:
    """A public benchmark's figures by its own formula."""
    return Table(("", "score"), [[name, percent(value)] for name, value in benchmark["table"]])


def _accuracy(figures: Metrics, facts: Metrics) -> Section:
    value, votes = figures["accuracy"], figures["vote_agreement"]
    crossing = "responses to any prompts" if facts.get("across_prompts") else "responses to one prompt"
    grade: Grade = "fair"
    if absent(value):
        grade, means = "", "No pair is decided, so nothing can be said about its order."
    elif low_end(figures["accuracy_interval"]) <= CHANCE:
        grade, means = "bad", "That is not clearly better than chance (50%)."
    elif votes < 1 and value >= votes:
        grade, means = "good", f"That is as often as single people's votes agree with the majority ({percent(votes)})."
    elif votes < 1:
        grade = "good" if value >= GOOD_ACCURACY else "fair"
        means = f"Single people's votes agree with the majority in {percent(votes)}; chance is 50%."
    else:
        grade = "good" if value >= GOOD_ACCURACY else "fair"
        means = "Chance is 50%."
    rows = [["pairs", share(figures, "accuracy"), f"{figures['pairs']:,}"]]
    if figures.get("by_prompt") is not None:
        rows.append(["prompts, each counting alike", share(figures, "by_prompt"), f"{figures['prompts']:,}"])
    if votes < 1:
        rows.append(["single people's votes", share(figures, "vote_agreement"), f"{figures['pairs']:,}"])
    tables = [Table(("", "ordered as people do, 95% interval", "of"), rows)]
    if figures.get("people"):
        tables.append(_people_table(figures["people"]))
    alike = (
        f"; {figures['equal_scores']:,} of them got equal scores, which count half" if figures["equal_scores"] else ""
    )
    undecided = f" {figures['undecided']:,} undecided pairs are left out." if figures["undecided"] else ""
    return Section(
        "accuracy",
        SECTIONS["accuracy"][0],
        f"It orders {percent(value)} of the pairs as people do. {means}",
        grade,
        share(figures, "accuracy"),
        tables,
        f"{figures['pairs']:,} pairs of {crossing}{alike}.{undecided} The better response scores "
        f"{plain(figures, 'margin')} standard deviations higher on average. Intervals: 95%, bootstrap over "
        f"{facts.get('units', 0):,} {facts.get('unit', 'prompts')}.",
    )


def _people_table(people: Metrics) -> Table:
    rows = []
    for name, part in people.items():
        r = plain(part, "r", 3) if part["r"] is not None else part["why"]
        human = "" if part.get("human_r") is None else decimal(part["human_r"], 3)
        worth = "" if part.get("worth") is None else decimal(part["worth"], 1)
        rows.append([name, f"{part['texts']:,}", r, human, worth])
    columns = ("", "texts", "r, 95% interval", "one person's r", "worth in people")
    return Table(columns, rows, "Correlation with people's mean rating")


def _tau(figures: Metrics, facts: Metrics) -> Section:
    value = figures["tau"]
    grade: Grade = "fair"
    if absent(value):
        grade, means = "", "No ranking has an order in both people's and the model's scores, so tau is undefined."
    elif low_end(figures["tau_interval"]) <= 0:
        grade, means = "bad", "Its rankings agree with people's no more than random ones do (0)."
    else:
        grade = "good" if value >= GOOD_TAU else "fair"
        means = (
            f"Of 100 pairs in a ranking it puts about {50 + 50 * value:.0f} in people's order; 1 is the same ranking, "
            "0 a random one."
        )
    constant = [
        f"{figures[name]:,} more have no tau: {reason}"
        for name, reason in (
            ("constant_scores", "the model scores all of their responses alike"),
            ("constant_people", "people do"),
        )
        if figures[name]
    ]
    kind = f"Mean over {figures['rankings']:,} rankings of tau-b, in which ties count for neither side."
    return Section(
        "tau",
        SECTIONS["tau"][0],
        f"Its rankings agree with people's by a tau of {decimal(value)}. {means}" if not absent(value) else means,
        grade,
        plain(figures, "tau"),
        note=" ".join([kind, *(f"{text}." for text in constant)]),
    )


def _calibration(figures: Metrics, facts: Metrics) -> Section:
    raw, fitted, temperature = figures["raw"], figures["fitted"], figures["temperature"]
    near = _near_floor(raw)
    grade: Grade = "good" if near else "bad"
    said = (
        f"A probability read off its scores is wrong by {percent(raw['ece'])} on average, where chance alone gives "
        f"{percent(raw['ece_floor'], 2)}."
    )
    if near:
        said += " Its probabilities can be believed as they are."
    elif fitted is not None and _near_floor(fitted):
        grade = "fair"
        sure = "sure" if temperature["value"] > 1 else "unsure"
        said += (
            f" It is too {sure} of itself: divide its scores by {decimal(temperature['value'])}, and they can be "
            f"believed ({percent(fitted['ece'])})."
        )
    else:
        rest = (
            ""
            if fitted is None
            else f", nor after dividing its scores by a fitted temperature ({percent(fitted['ece'])})"
        )
        said += f" Its probabilities can't be believed{rest}."
    columns = [("as it is", raw)] + ([("after the temperature", fitted)] if fitted is not None else [])
    rows = [
        ["calibration error (ECE)", *(percent(table["ece"]) for _, table in columns)],
        [
            "  chance alone, and at most",
            *(f"{percent(t['ece_floor'], 2)}, {percent(t['ece_floor_high'], 2)}" for _, t in columns),
        ],
        ["Brier score", *(plain(table, "brier", 3) for _, table in columns)],
        ["  of people's own shares", *(decimal(table["brier_floor"], 3) for _, table in columns)],
        ["negative log-likelihood, nats", *(plain(table, "nll", 3) for _, table in columns)],
        ["  of people's own shares", *(decimal(table["nll_floor"], 3) for _, table in columns)],
    ]
    note = f"{figures['pairs']:,} pairs, each in both orders. P(a is better than b) = sigmoid(score of a - score of b)."
    if temperature is not None:
        limit = (
            " (at the limit of the fit: the scores order all of these pairs, or none)"
            if temperature["at_limit"]
            else ""
        )
        note += (
            f" Temperature {decimal(temperature['value'])}{limit}, judged on {temperature['judged_pairs']:,} pairs "
            "that it wasn't fitted on."
        )
    return Section(
        "calibration",
        SECTIONS["calibration"][0],
        said,
        grade,
        f"{percent(raw['ece'])} off, floor {percent(raw['ece_floor'], 2)}",
        [Table(("", *(name for name, _ in columns)), rows)],
        note,
    )


def _near_floor(table: Metrics) -> bool:
    return bool(table["ece"] <= max(table["ece_floor_high"], table["ece_floor"] + NEAR_FLOOR))


def _robustness(figures: Metrics, facts: Metrics) -> Section:
    changes = sorted(figures["changes"], key=lambda change: -change["drop"])
    mean, worst = figures["mean_drop"], max((change["drop"] for change in changes), default=math.nan)
    grade: Grade = "bad"
    if absent(mean):
        grade = ""
    elif mean <= GOOD_DROP[0] and worst <= GOOD_DROP[1]:
        grade = "good"
    elif mean <= FAIR_DROP[0] and worst <= FAIR_DROP[1]:
        grade = "fair"
    judged = {
        "good": "It reads what is said more than how it is written.",
        "fair": "Some ways of writing mislead it.",
        "bad": "It depends on how a response is written.",
        "": "",
    }[grade]
    rows = [
        [
            change["name"].replace("_", " "),
            points(change, "drop"),
            points(change, "one_sided_drop"),
            decimal(change["shift"], sign=True) if change["shift"] is not None else "",
            f"{figures['texts'] - change['unchanged']:,}",
        ]
        for change in changes
    ]
    said = (
        f"Changes that keep the meaning cost it {decimal(100 * mean, 1)} points of accuracy on average, the worst "
        f"({str(figures['worst']).replace('_', ' ')}) {decimal(100 * worst, 1)}. {judged}"
    )
    layouts = "; ".join(
        f"{layout['name'].replace('_', ' ')} {layout['largest_difference']:.1g}" for layout in figures["layouts"]
    )
    return Section(
        "robustness",
        SECTIONS["robustness"][0],
        said.rstrip(),
        grade,
        f"{decimal(100 * mean, 1, sign=True)} points lost, worst {decimal(100 * worst, 1, sign=True)}",
        [Table(("change", "points lost", "one-sided", "shift, sd", "texts"), rows)],
        f"{len(changes)} changes of {figures['texts']:,} texts; {figures['pairs']:,} pairs, of which it orders "
        f"{percent(figures['accuracy'])} right unchanged. Points of accuracy lost if both responses of a pair change; "
        "one-sided: if one of them does (mean of both cases). Texts: those that the change alters. Largest difference "
        "of a score where only the layout differs: "
        f"{layouts}.",
    )


def _length(figures: Metrics, facts: Metrics) -> Section:
    excess = figures["excess"]
    grade: Grade = ""
    if absent(figures["reward"]):
        said = "Its scores or the lengths don't differ within a pair, so the two have no correlation."
    elif absent(excess):
        said = (
            f"Its score correlates with length by {decimal(figures['reward'])}; people's own correlation is undefined."
        )
    else:
        unclear = low_end(figures["excess_interval"]) <= 0 <= figures["excess_interval"][1]
        grade = "bad" if abs(excess) > FAIR_EXCESS else "good" if unclear or abs(excess) <= GOOD_EXCESS else "fair"
        said = (
            f"Its score correlates with length by {decimal(figures['reward'], sign=True)}, people's choices by "
            f"{decimal(figures['people'], sign=True)}: "
        )
        more = "pays for length more" if excess > 0 else "pays for length less"
        said += "not clearly more or less than people do." if grade == "good" else f"it {more} than people do."
    unit = facts.get("length_unit", "characters")
    rows = [
        [f"{part['low']:+.0f} to {part['high']:+.0f}", share(part, "accuracy"), f"{part['pairs']:,}"]
        for part in figures["parts"]
    ]
    tables = [Table((f"better minus worse, {unit}", "ordered as people do, 95% interval", "pairs"), rows)]
    if styles := figures.get("styles"):
        tables += _style_tables(styles)
        levels = {name: styles[name] for name in ("easy", "normal", "hard")}
        said += (
            " With equal content in several styles it is right in "
            + ", ".join(f"{percent(value)} ({name})" for name, value in levels.items())
            + " of the pairs; hard: the worse response is the fancier one."
        )
    wins = figures["longer_wins"]
    note = f"Mean length {figures['mean_length']:.0f} {unit}."
    if wins["pairs"]:
        note += (
            f" The longer response is people's choice in {percent(wins['people'])} of {wins['pairs']:,} pairs and the "
            f"model's in {percent(wins['reward'])}."
        )
    figure = f"{decimal(figures['reward'], sign=True)}, people {decimal(figures['people'], sign=True)}"
    return Section("length", SECTIONS["length"][0], said, grade, figure, tables, note)


def _style_tables(styles: Metrics) -> list[Table]:
    names = styles["styles"]
    rows = [
        [f"better: {name}", *(percent(value) for value in row)]
        for name, row in zip(names, styles["matrix"], strict=True)
    ]
    levels = [[name, share(styles, name)] for name in ("easy", "normal", "hard", "average")]
    return [
        Table(("", *(f"worse: {name}" for name in names)), rows, "Style matrix"),
        Table(("level", "right, 95% interval"), levels),
    ]


def _subsets(figures: Metrics, facts: Metrics) -> Section:
    rows, worst = figures["subsets"], figures["worst"]
    lowest = next((row for row in rows if row["name"] == worst), None)
    unit = facts.get("unit", "prompts")
    table = Table(
        ("subset", "ordered as people do, 95% interval", "pairs", unit),
        [[row["name"], share(row, "accuracy"), f"{row['pairs']:,}", f"{row['units']:,}"] for row in rows],
    )
    if lowest is None:
        said = f"No subset has enough {unit} to call one the worst."
        return Section("subsets", SECTIONS["subsets"][0], said, "", percent(figures["mean"]), [table])
    low, behind = low_end(lowest["accuracy_interval"]), figures["mean"] - lowest["accuracy"]
    grade: Grade = "bad" if low <= CHANCE else "good" if behind <= BEHIND_MEAN else "fair"
    judged = {
        "good": "no subset falls far behind.",
        "fair": f"that is {decimal(100 * behind, 0)} points behind the mean of the subsets.",
        "bad": "there it is not clearly better than chance.",
        "": "",
    }[grade]
    return Section(
        "subsets",
        SECTIONS["subsets"][0],
        f"It is worst on {worst} with {share(lowest, 'accuracy')}: {judged}",
        grade,
        f"{worst} {share(lowest, 'accuracy')}",
        [table],
        f"Mean of {len(rows)} subsets, each counting alike: {percent(figures['mean'])}.",
    )


def _best_of_n(figures: Metrics, facts: Metrics) -> Section:
    curve = figures["curve"]
    last, best = curve[-1], max(curve, key=lambda point: point["gold"])
    judge = facts.get("judge", "the judge") if figures["gold"] == "judge" else f"people's {figures['gold']}"
    reached = last["share"]
    grade: Grade = ""
    if reached is None:
        said = f"{judge[0].upper()}{judge[1:]} doesn't tell the responses apart, so picking can't gain anything."
    else:
        grade = "good" if reached >= GOOD_SHARE else "fair" if reached >= FAIR_SHARE else "bad"
        said = (
            f"The best of {last['n']} responses by its score gains {percent(reached, 0)} of what picking by {judge} "
            "itself would."
        )
        if best["gold"] - last["gold"] > TURNED * (best["gold"] - curve[0]["gold"]):
            grade = "fair" if grade == "good" else grade
            said += f" More than {best['n']} make it worse: it is picking what only it likes."
        elif grade == "bad":
            said += " Its favourites are hardly better than a random response."
    rows = [
        [
            str(point["n"]),
            decimal(point["kl"]),
            plain(point, "gold"),
            decimal(point["possible"]),
            "" if point["share"] is None else percent(point["share"], 0),
        ]
        for point in curve
    ]
    left_out = f"; prompts with fewer are left out ({figures['left_out']:,})" if figures["left_out"] else ""
    return Section(
        "best_of_n",
        SECTIONS["best_of_n"][0],
        said,
        grade,
        f"{decimal(curve[0]['gold'])} to {decimal(last['gold'])} at n = {last['n']}",
        [Table(("n", "KL, nats", "picked, 95% interval", "the best", "share"), rows)],
        f"{figures['prompts']:,} prompts with {figures['responses']:,} responses each{left_out}. Scores by {judge}, "
        "the mean over all subsets of n responses, without drawing any. KL: log n - (n - 1)/n, how far best-of-n moves "
        "from the policy at most.",
    )


MEASURES = {
    "difference": "|difference of scores| alone",
    "entropy": "entropy of the preference",
    "std": "std over members",
    "variance_ratio": "variation ratio of members",
    "mc_dropout": "std over dropout passes",
}
"""Measures of a pair's uncertainty, in the order in which they are shown."""


def _uncertainty(figures: Metrics, facts: Metrics) -> Section:
    measures = {measure["name"]: measure for measure in figures["measures"]}
    alone, entropy = measures["difference"], measures["entropy"]
    best = max(measures.values(), key=lambda measure: -math.inf if absent(measure["auroc"]) else measure["auroc"])
    grade: Grade = "fair"
    if absent(entropy["auroc"]):
        grade, said = "", "It orders all of these pairs as people do, or none, so there is nothing to tell apart."
    else:
        said = (
            f"Its uncertainty (entropy) tells errors from right pairs with an AUROC of {decimal(entropy['auroc'])}, "
            "the size of the difference alone, which a single model has too, with "
            f"{decimal(alone['auroc'])}; chance is 0.50. It errs in {percent(entropy['top_error'])} of the tenth of "
            f"pairs that it is least sure of, and in {percent(entropy['rest_error'])} of the rest."
        )
        if low_end(entropy["auroc_interval"]) <= CHANCE:
            grade, means = "bad", "That is not clearly better than chance."
        elif low_end(entropy["gain_interval"]) > 0:
            grade, means = "good", "Several members see more than one."
        else:
            means = "That is not clearly better than the difference alone."
        said += f" {means}"
        if best["name"] not in ("entropy", "difference"):
            said += f" The highest AUROC has the {MEASURES[best['name']]}: {decimal(best['auroc'])}."
    rows = [
        [
            label,
            plain(measures[name], "auroc"),
            "" if measures[name]["gain"] is None else plain(measures[name], "gain"),
            share(measures[name], "top_error"),
            share(measures[name], "rest_error"),
        ]
        for name, label in MEASURES.items()
        if name in measures
    ]
    alike = f"; {figures['equal_scores']:,} pairs with equal scores are left out" if figures["equal_scores"] else ""
    dropout = (
        f", and std of that of its score over {figures['passes']} passes with dropout" if figures["passes"] else ""
    )
    return Section(
        "uncertainty",
        SECTIONS["uncertainty"][0],
        said,
        grade,
        f"AUROC {plain(entropy, 'auroc')}, difference alone {decimal(alone['auroc'])}",
        [Table(("uncertain by", "AUROC", "gain", "errors, unsure tenth", "errors, the rest"), rows)],
        f"{figures['errors']:,} errors in {figures['pairs']:,} decided pairs{alike}. {figures['members']} members. The "
        "uncertainty of a pair is that of the difference of its two scores, not of either: std over members of their "
        "difference, entropy of their mean probability that the first is better, share of members that aren't on the "
        f"majority's side{dropout}. AUROC: the chance that an error is less sure than a right pair; gain: what the "
        f"difference alone lacks. Intervals: 95%, bootstrap over {facts.get('unit', 'prompts')}.",
    )


def _worst_rows(figures: Sequence[Metrics], facts: Metrics) -> Section:
    count = len(figures)
    return Section(
        "worst_rows",
        SECTIONS["worst_rows"][0],
        f"The {count} pairs in which it is most sure of the response that people are sure is worse: read them, since "
        "no figure tells why it errs.",
        "",
        f"{count} rows",
        [
            Table(
                ("rows", "better", "worse", "people"),
                [
                    [
                        " and ".join(map(str, dict.fromkeys(row["rows"]))),
                        decimal(row["better_score"]),
                        decimal(row["worse_score"]),
                        percent(row["label"], 0),
                    ]
                    for row in figures
                ],
            )
        ],
    )


SECTIONS: dict[str, tuple[str, Callable[[Any, Metrics], Section], str]] = {
    "accuracy": ("Accuracy", _accuracy, "Empty: no two responses can be compared."),
    "tau": (
        "Rank agreement (Kendall's tau)",
        _tau,
        "Empty: no prompt has a ranking, scores or ratings of its responses; for pairs, tau is 2 x accuracy - 1.",
    ),
    "calibration": (
        "Calibration",
        _calibration,
        "Empty: there are no pairs whose probability could be right or wrong.",
    ),
    "robustness": (
        "Robustness",
        _robustness,
        "Empty: scores were given instead of a model, so no changed text could be scored.",
    ),
    "length": ("Length and style", _length, "Empty: there are no pairs whose lengths could differ."),
    "subsets": ("Subsets", _subsets, "Empty: the rows have no column subset or domain, so all of them are one set."),
    "best_of_n": (
        "Best of n",
        _best_of_n,
        "Empty: no prompt has several responses that people or a judge scored; give a judge, or rows with several "
        "responses to a prompt.",
    ),
    "worst_rows": (
        "The worst rows",
        _worst_rows,
        "Empty: it orders every decided pair as people do.",
    ),
    "uncertainty": (
        "Uncertainty (does it know where it errs?)",
        _uncertainty,
        "Empty: only an ensemble has members that can disagree.",
    ),
}
"""For each key its title, the function that builds the section, and what is said if the data can't fill it."""
