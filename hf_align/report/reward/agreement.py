"""Whether a reward model orders responses as people do: accuracy, rankings, subsets, best-of-n, the worst rows."""

from __future__ import annotations

from collections.abc import Sequence

from hf_align.report.figures import Metrics, absent, decimal, low_end, percent, plain, share
from hf_align.report.sections import Content, Grade, Table

CHANCE = 0.5
GOOD_ACCURACY, GOOD_TAU = 0.8, 0.6
BEHIND_MEAN = 0.1
"""How far a subset may lie behind the mean of all."""
GOOD_SHARE, FAIR_SHARE = 0.7, 0.3
"""Share of the possible gain that best-of-n reaches."""
TURNED = 0.05
"""Share of its largest gain that best-of-n loses again before it counts as having turned over."""


def accuracy(figures: Metrics, facts: Metrics) -> Content:
    """Share of pairs in people's order, beside that of single people's votes."""
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
    return Content(
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


def tau(figures: Metrics, facts: Metrics) -> Content:
    """Agreement of rankings."""
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
    return Content(
        f"Its rankings agree with people's by a tau of {decimal(value)}. {means}" if not absent(value) else means,
        grade,
        plain(figures, "tau"),
        note=" ".join([kind, *(f"{text}." for text in constant)]),
    )


def subsets(figures: Metrics, facts: Metrics) -> Content:
    """Accuracy by part of the data, the worst first."""
    rows, worst = figures["subsets"], figures["worst"]
    lowest = next((row for row in rows if row["name"] == worst), None)
    unit = facts.get("unit", "prompts")
    table = Table(
        ("subset", "ordered as people do, 95% interval", "pairs", unit),
        [[row["name"], share(row, "accuracy"), f"{row['pairs']:,}", f"{row['units']:,}"] for row in rows],
    )
    if lowest is None:
        said = f"No subset has enough {unit} to call one the worst."
        return Content(said, "", percent(figures["mean"]), [table])
    low, behind = low_end(lowest["accuracy_interval"]), figures["mean"] - lowest["accuracy"]
    grade: Grade = "bad" if low <= CHANCE else "good" if behind <= BEHIND_MEAN else "fair"
    judged = {
        "good": "no subset falls far behind.",
        "fair": f"that is {decimal(100 * behind, 0)} points behind the mean of the subsets.",
        "bad": "there it is not clearly better than chance.",
        "": "",
    }[grade]
    return Content(
        f"It is worst on {worst} with {share(lowest, 'accuracy')}: {judged}",
        grade,
        f"{worst} {share(lowest, 'accuracy')}",
        [table],
        f"Mean of {len(rows)} subsets, each counting alike: {percent(figures['mean'])}.",
    )


def best_of_n(figures: Metrics, facts: Metrics) -> Content:
    """What the best of n responses by its score gains, of what the judge's own choice would."""
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
    return Content(
        said,
        grade,
        f"{decimal(curve[0]['gold'])} to {decimal(last['gold'])} at n = {last['n']}",
        [Table(("n", "KL, nats", "picked, 95% interval", "the best", "share"), rows)],
        f"{figures['prompts']:,} prompts with {figures['responses']:,} responses each{left_out}. Scores by {judge}, "
        "the mean over all subsets of n responses, without drawing any. KL: log n - (n - 1)/n, how far best-of-n moves "
        "from the policy at most.",
    )


def worst_rows(figures: Sequence[Metrics], facts: Metrics) -> Content:
    """The pairs in which it is surest of the response that people find worse."""
    count = len(figures)
    return Content(
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
