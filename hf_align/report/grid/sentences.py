"""What a benchmark shows, in sentences made from its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_align.report.figures import decimal, ends
from hf_align.report.grid.tables import estimate

Summary = Mapping[str, Any]
MOST_PAIRS = 4
"""Most pairs that are named one by one where nothing is shown."""


def measured(summary: Summary) -> str:
    """What the differences are in: the judge's score, or win rates over the base."""
    judge = summary["facts"]["judge"]
    named = f"the judge ({judge})" if isinstance(judge, str) else "the judge"
    return f"win rate over the base by {named}" if summary["facts"]["compares_only"] else f"score of {named}"


def finding_sentences(summary: Summary) -> list[str]:
    """Which differences are real, which side of best-of-n algorithms are on, and what flipped labels cost."""
    sentences = []
    for dataset in summary["datasets"]:
        where = f"{dataset['name']}: " if len(summary["datasets"]) > 1 else ""
        sentences += [where + text for text in (*differences_of(dataset), *_sides(dataset))]
    for flips in summary["flips"]:
        sentences += [f"{flips['flipped']} against {flips['clean']}: {text}" for text in _losses(flips)]
    return sentences


def differences_of(dataset: Summary) -> Iterator[str]:
    """Real differences by the better algorithm, then those that are not shown."""
    ahead: dict[str, list[str]] = {each["label"]: [] for each in dataset["algorithms"]}
    open_pairs: list[tuple[float, str]] = []
    single = []
    for each in dataset["differences"]:
        (better, worse), figures = _ordered(each)
        if each["real"]:
            ahead[better].append(f"{worse} ({_signed(figures)})")
        elif not each["enough"]:
            single.append(f"{better} and {worse}")
        else:
            open_pairs.append((each["adjusted"], f"{better} and {worse} ({_signed(figures)})"))
    for label, others in ahead.items():
        if others:
            yield f"{label} is ahead of {_listed(others)}."
    if open_pairs:
        yield _not_told_apart(open_pairs, all_of=not any(ahead.values()))
    if single:
        pairs = _listed(single) if len(single) <= MOST_PAIRS else f"{len(single)} pairs of algorithms"
        yield f"{pairs} have fewer than two seeds in common, so nothing is said about another training."


def _not_told_apart(pairs: Sequence[tuple[float, str]], *, all_of: bool) -> str:
    """Pairs without a real difference: each where they are few, else their number and the one nearest to being real."""
    if len(pairs) <= MOST_PAIRS:
        return f"{_listed([words for _, words in pairs])} are not told apart."
    p, nearest = min(pairs)
    of_all = f"of {len(pairs)} pairs of algorithms none is" if all_of else f"{len(pairs)} other pairs are not"
    return f"{of_all} told apart; nearest to it: {nearest[:-1]}, adjusted p {p:.3f})."


def _ordered(pair: Summary) -> tuple[tuple[str, str], Summary]:
    """The two labels, the one with the larger mean first, and their difference in that order."""
    difference = pair["difference"]
    if difference["mean"] >= 0:
        return (pair["a"], pair["b"]), difference
    low, high = difference["interval"]
    turned = [None if end is None else -end for end in (high, low)]
    return (pair["b"], pair["a"]), {"mean": -difference["mean"], "interval": turned}


def _signed(figures: Summary) -> str:
    return f"{decimal(figures['mean'], 3, sign=True)} {ends(figures['interval'], 1, 3)}".rstrip()


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sides(dataset: Summary) -> Iterator[str]:
    """The algorithms on each side of best-of-n's curve, with their KL and by how much."""
    frontier = dataset["frontier"]
    if not frontier or not frontier["anchor"]:
        return
    largest = frontier["anchor"][-1]
    begins = {
        "above": "above best-of-n's curve",
        "below": "below best-of-n's curve",
        "undecided": "not told apart from best-of-n's curve",
        "beyond": f"beyond best-of-n's range, which ends at {decimal(largest['kl'])} nats (gain minus best of "
        f"{largest['n']} there)",
    }
    for side, words in begins.items():
        found = [
            f"{point['label']} at {decimal(point['kl']['mean'], 1)} nats ({_signed(point['difference'])})"
            for point in frontier["points"]
            if point["side"] == side
        ]
        if found:
            yield f"{words}: {_listed(found)}."


def _losses(flips: Summary) -> Iterator[str]:
    lost = [f"{each['label']} {estimate(each['lost'])}" for each in flips["algorithms"] if each["real"]]
    kept = [f"{each['label']} ({_signed(each['lost'])})" for each in flips["algorithms"] if not each["real"]]
    worse = [each["lost"]["mean"] < 0 for each in flips["algorithms"] if each["real"]]
    if lost:
        yield f"flipped labels cost {_listed(lost)}{' (a negative loss is a gain)' if any(worse) else ''}."
    if kept:
        yield f"no loss is shown for {_listed(kept)}."
