"""The tables of a benchmark, from its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_align.report.figures import absent, decimal, ends, percent
from hf_align.report.grid.theory import THEORY, UNKNOWN
from hf_align.report.sections import Table

Summary = Mapping[str, Any]
NOT_MEASURED = "not measured"
SIDES = {
    "above": "above",
    "below": "below",
    "undecided": "not decided",
    "beyond": "beyond its range",
    None: "no best-of-n",
}


def estimate(figures: Summary | None, digits: int = 3, *, sign: bool = False, scale: float = 1.0) -> str:
    """A mean with its interval, `0.54 [0.50, 0.58]`."""
    if figures is None or absent(figures["mean"]):
        return NOT_MEASURED
    return f"{decimal(scale * figures['mean'], digits, sign)} {ends(figures['interval'], scale, digits)}".rstrip()


def share(figures: Summary | None) -> str:
    """A share in percent with its interval."""
    if figures is None or absent(figures["mean"]):
        return NOT_MEASURED
    return f"{percent(figures['mean'])} {ends(figures['interval'], 100, 1)}".rstrip()


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None without any."""
    given = [value for value in values if value is not None]
    return sum(given) / len(given) if given else None


def seeds_of(entry: Summary, dataset: str, summary: Summary) -> str:
    """How many seeds are finished, of how many where some are missing."""
    gaps = sum(each["dataset"] == dataset and each["label"] == entry["label"] for each in summary["gaps"])
    done = len(entry["seeds"])
    return f"{done} of {done + gaps}" if gaps else str(done)


def quality_table(dataset: Summary, summary: Summary) -> Table:
    """Gains over the base and what they cost in KL and length."""
    entries = dataset["algorithms"]
    with_iqm = any(each["judge"] and "iqm" in each["judge"] for each in entries)
    columns = ["algorithm", "seeds", "judge gain", "by seed", *(["middle half of seeds"] if with_iqm else [])]
    columns += ["win rate", "at equal length", "reward gain", "KL (nats)", "tokens", "ended"]
    return Table(columns, [_quality_row(each, dataset["name"], summary, with_iqm) for each in entries])


def _quality_row(entry: Summary, dataset: str, summary: Summary, with_iqm: bool) -> list[str]:
    judge = entry["judge"]
    row = [entry["label"], seeds_of(entry, dataset, summary), estimate(judge, sign=True)]
    row.append(", ".join(decimal(gain, 3, sign=True) for gain in judge["by_seed"]) if judge else NOT_MEASURED)
    if with_iqm:
        middle = judge if judge and "iqm" in judge else None
        row.append(estimate(middle and {"mean": middle["iqm"], "interval": middle["iqm_interval"]}, sign=True))
    return [
        *row,
        share(entry["win_rate"]),
        share(entry["length_controlled"]),
        estimate(entry["reward"], 2, sign=True),
        estimate(entry["kl"], 1),
        NOT_MEASURED if entry["length"] is None else decimal(entry["length"]["mean"], 1),
        NOT_MEASURED if entry["ended"] is None else percent(entry["ended"]["mean"], 0),
    ]


def short_table(dataset: Summary, summary: Summary) -> Table:
    """The main figures, for a terminal."""
    rows = [
        [
            each["label"],
            seeds_of(each, dataset["name"], summary),
            estimate(each["judge"], sign=True),
            share(each["win_rate"]),
            NOT_MEASURED if each["kl"] is None else decimal(each["kl"]["mean"], 1),
            NOT_MEASURED if (seconds := mean(each["training_seconds"])) is None else f"{seconds:,.0f}",
        ]
        for each in dataset["algorithms"]
    ]
    return Table(["algorithm", "seeds", "judge gain", "win rate", "KL", "seconds"], rows)


def cost_table(dataset: Summary) -> Table:
    """Rows, time and memory."""
    columns = ["algorithm", "rows", "steps", "ended by", "seconds", "peak memory (GiB)", "device"]
    return Table(columns, [_cost_row(each) for each in dataset["algorithms"]])


def _cost_row(entry: Summary) -> list[str]:
    memory = entry["peak_memory_bytes"]
    return [
        entry["label"],
        *(NOT_MEASURED if (value := mean(entry[name])) is None else f"{value:,.0f}" for name in ("rows", "steps")),
        ", ".join(f"{name} ({count})" for name, count in entry["stopped_by"].items()) or NOT_MEASURED,
        NOT_MEASURED if (seconds := mean(entry["training_seconds"])) is None else f"{seconds:,.1f}",
        NOT_MEASURED if memory is None else f"{memory / 2**30:.2f}",
        ", ".join(entry["devices"]) or NOT_MEASURED,
    ]


def difference_table(dataset: Summary) -> Table:
    """Every two algorithms."""
    rows = [
        [
            f"{each['a']} minus {each['b']}",
            str(len(each["seeds"])),
            estimate(each["difference"], sign=True),
            _p_value(each["adjusted"]),
            "yes" if each["real"] else "not shown",
            estimate(each["kl"], 1, sign=True),
        ]
        for each in dataset["differences"]
    ]
    return Table(["difference", "common seeds", "judge", "adjusted p", "real", "KL (nats)"], rows)


def _p_value(p: float | None) -> str:
    if absent(p):
        return "one seed"
    return "< 0.001" if p < 0.001 else decimal(p, 3)  # pyright: ignore


def frontier_table(frontier: Summary) -> Table:
    """Which side of best-of-n each algorithm is on."""
    rows = [
        [
            each["label"],
            estimate(each["kl"], 1),
            estimate(each["gain"], sign=True),
            SIDES[each["side"]],
            estimate(each["difference"], sign=True),
        ]
        for each in frontier["points"]
    ]
    rows += [
        [f"best of {each['n']}", f"at most {decimal(each['kl'])}", estimate(each["gain"], sign=True), "", ""]
        for each in frontier["anchor"]
    ]
    return Table(["algorithm", "KL (nats)", "gain", "best-of-n's curve", "gain minus the curve's"], rows)


def flip_table(flips: Summary) -> Table:
    """What flipped labels cost each algorithm."""
    rows = [
        [
            each["label"],
            str(len(each["seeds"])),
            estimate(each["lost"], sign=True),
            _p_value(each["adjusted"]),
            "yes" if each["real"] else "not shown",
        ]
        for each in flips["algorithms"]
    ]
    return Table(["algorithm", "common seeds", "lost", "adjusted p", "real"], rows)


def gap_table(summary: Summary) -> Table:
    """Planned runs without figures."""
    rows = [
        [f"{each['dataset']} / {each['label']}", str(each["seed"]), "failed" if each["failed"] else "", each["reason"]]
        for each in summary["gaps"]
    ]
    return Table(["run", "seed", "", "reason"], rows)


def main_dataset(summary: Summary) -> Summary:
    """The first data set without flipped labels, or the first."""
    datasets = summary["datasets"]
    return next((each for each in datasets if not each["flip"]), datasets[0])


def comparison_table(summary: Summary) -> Table:
    """What each algorithm needs, how stable it was, what it cost, what noise cost it, and what is proved."""
    dataset = main_dataset(summary)
    flips = next((each for each in summary["flips"] if each["clean"] == dataset["name"]), None)
    lost = {each["label"]: each["lost"] for each in flips["algorithms"]} if flips else {}
    compared = next((each for each in dataset["algorithms"] if each["method"] == "dpo"), None)
    columns = ["algorithm", "reward model", "reference", "online sampling", "value model", "spread between seeds"]
    columns += ["failed", "time", "memory", "lost to flipped labels", "guaranteed by theory"]
    rows = []
    for entry in dataset["algorithms"]:
        theory = THEORY.get(entry["method"], UNKNOWN)
        rows.append(
            [
                entry["label"],
                *(_yes_or_no(entry["needs"][name]) for name in ("reward_model", "reference", "online", "value")),
                _spread(entry),
                f"{entry['failed']} of {entry['failed'] + len(entry['seeds'])}",
                *_costs(entry, compared),
                estimate(lost.get(entry["label"]), sign=True),
                f"{theory.guarantee} ({theory.source})" if theory.source else theory.guarantee,
            ]
        )
    return Table(columns, rows)


def _yes_or_no(needed: bool | None) -> str:
    return "unknown" if needed is None else "yes" if needed else "no"


def _spread(entry: Summary) -> str:
    judge = entry["judge"]
    if judge is None or judge["spread"] is None:
        return NOT_MEASURED
    return f"{decimal(judge['spread'], 3)} ({len(entry['seeds'])} seeds)"


def _costs(entry: Summary, compared: Summary | None) -> list[str]:
    """Seconds and peak memory, and how many times DPO's where both were measured on the same device."""
    seconds, memory = mean(entry["training_seconds"]), entry["peak_memory_bytes"]
    same = compared is not None and entry["devices"] == compared["devices"]
    theirs = (mean(compared["training_seconds"]), compared["peak_memory_bytes"]) if compared and same else (None, None)
    cells = []
    for value, other, text in (
        (seconds, theirs[0], f"{seconds or 0:,.1f} s"),
        (memory, theirs[1], f"{(memory or 0) / 2**30:.2f} GiB"),
    ):
        times = f" ({value / other:.2f} × DPO)" if value is not None and other and entry is not compared else ""
        cells.append(NOT_MEASURED if value is None else text + times)
    return cells
