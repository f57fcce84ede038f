"""Write the tables of a quickstart's figures into README.md and docs/results/README.md.

    python docs/make_results.py [METRICS]

Copies METRICS, a quickstart's metrics.json, to docs/results/quickstart-full.json first, if it is given.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
METRICS = ROOT / "docs" / "results" / "quickstart-full.json"
START, END = "<!-- {}: docs/make_results.py -->", "<!-- end -->"
NAMES = {"base": "base", "dpo": "DPO", "ipo": "IPO", "ppo": "PPO"}
DOMAINS = ("movies", "products", "tweets")


def agreement(metrics: Mapping[str, Any]) -> str:
    """Agreement with people by domain; the lead over one person from metrics that have it."""
    people = metrics["reward_model"]
    has_lead = all("r_gain" in people[domain]["scorers"]["single human"] for domain in DOMAINS)
    names = ["held-out sentences", "reward model: r, 95% interval", "VADER", "one person"]
    names += ["lead over one person"] * has_lead + ["reward model: pairs", "VADER", "one person"]
    lines = [row(*names), "|" + "---|" * len(names)]
    for domain in DOMAINS:
        part = people[domain]
        ours, vader, person = (part["scorers"][name] for name in ("reward model", "VADER", "single human"))
        lead = [f"{person['r_gain']:+.2f} {interval(person['r_gain_interval'])}"] if has_lead else []
        r = best(ours["r"], vader["r"]), best(vader["r"], ours["r"]), number(person["r"]), *lead
        pairs = (
            best(ours["pair_accuracy"], vader["pair_accuracy"]),
            best(vader["pair_accuracy"], ours["pair_accuracy"]),
            number(person["pair_accuracy"]),
        )
        cells = (f"{domain} ({part['texts']})", f"{r[0]} {interval(ours['r_interval'])}", *r[1:], *pairs)
        lines.append(row(*cells))
    return "\n".join(lines)


def policies(metrics: Mapping[str, Any]) -> str:
    """Figures of each policy's texts."""
    lines = [
        "| policy | VADER score | gain over base, 95% interval | reward | in sd of base "
        "| distinct-2 | tokens | ended |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in metrics["policies"]["all"]["policies"].items():
        trained = "gain" in entry
        lines.append(
            row(
                NAMES[name],
                number(entry["score"]),
                f"{entry['gain']:+.2f} {interval(entry['gain_interval'])}" if trained else "",
                f"{entry['reward']:.1f}",
                f"{entry['reward_gain_sds']:+.1f}" if trained else "",
                number(entry["distinct_2"]),
                f"{entry['mean_tokens']:.0f}",
                f"{entry['ended']:.0%}",
            )
        )
    return "\n".join(lines)


def stages(metrics: Mapping[str, Any]) -> str:
    """Duration of each stage."""
    seconds = metrics["seconds"]
    lines = ["| " + " | ".join([*seconds, "all"]) + " |", "|" + "---|" * (len(seconds) + 1)]
    return "\n".join([*lines, row(*(f"{value:.0f} s" for value in seconds.values()), f"{sum(seconds.values()):.0f} s")])


TABLES = {"agreement": agreement, "policies": policies, "stages": stages}


def filled(text: str, metrics: Mapping[str, Any]) -> str:
    """Replace the content between each table's two markers."""
    for name, make in TABLES.items():
        before, mark, rest = text.partition(START.format(name))
        if mark:
            text = f"{before}{mark}\n{make(metrics)}\n{END}{rest.partition(END)[2]}"
    return text


def number(value: float) -> str:
    """Format as `.83`, as in the README."""
    return f"{value:.2f}".replace("0.", ".", 1)


def best(value: float, rival: float) -> str:
    """The number, bold if it is the higher one."""
    return f"**{number(value)}**" if value >= rival else number(value)


def interval(ends: list[float]) -> str:
    """`[.77, .84]`."""
    return f"[{number(ends[0])}, {number(ends[1])}]"


def row(*cells: str) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def main(arguments: list[str]) -> None:
    """Run the script."""
    if arguments:
        shutil.copyfile(arguments[0], METRICS)
    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    for page in (ROOT / "README.md", ROOT / "docs" / "results" / "README.md"):
        page.write_text(filled(page.read_text(encoding="utf-8"), metrics), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
