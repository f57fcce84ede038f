"""Draw r against the number of answers and write its table: `python -m docs.make_answers_needed`.

Reads benchmarks/results/feedback/answers_needed.json (see benchmarks/feedback/answers_needed.py); writes
docs/images/answers-needed.svg and the table in docs/results/feedback.md. Seconds.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.feedback.answers_needed import RESULTS, SHARES

DOCS = Path(__file__).parent
FIGURE, PAGE = DOCS / "images" / "answers-needed.svg", DOCS / "results" / "feedback.md"
SHOWN = (225, 501, 999, 1998)
COLORS = {
    "random, 3 answers a pair": "#7f7f7f",
    "random": "#000000",
    "disagreement": "#ff7f0e",
    "information about parameters": "#9467bd",
    "information": "#1f77b4",
    "information, each text seldom": "#d62728",
    "information, each text seldom, log odds x 1.5": "#2ca02c",
    "information, 3 answers a pair": "#17becf",
}
Results = dict[str, Any]


def table(results: Results) -> str:
    """r at some numbers of answers, and the answers needed, as Markdown tables."""
    lines = [
        f"| choice | {' | '.join(f'r, {n:,} answers' for n in SHOWN)} |",
        "| --- |" + " --- |" * len(SHOWN),
    ]
    for name, method in results["methods"].items():
        places = [method["answers"].index(n) for n in SHOWN]
        cells = [f"{method['r'][n]:.3f} [{', '.join(f'{end:.3f}' for end in method['r_interval'][n])}]" for n in places]
        lines.append(f"| {name} | {' | '.join(cells)} |".replace("0.", "."))
    lines += [
        "",
        f"Answers for shares of full r ({results['full_r']:.3f}); in brackets their share of random choice's:",
        "",
        f"| choice | {' | '.join(f'{share:.0%} of full r' for share in SHARES)} |",
        "| --- |" + " --- |" * len(SHARES),
    ]
    for name, method in results["methods"].items():
        cells = [needed(method["needed"][f"{share:g}"], method["answers"][-1]) for share in SHARES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    machine = results["machine"]["cpu"]
    return "\n".join(lines) + f"\n\nMade by `{results['command']}` with {versions}, on one core of an {machine}.\n"


def needed(values: dict[str, Any], most: int) -> str:
    """A cell: answers, and their share of random choice's with its interval."""
    low, high = ("∞" if end is None else f"{end:.2f}" for end in values["interval"])
    if values["answers"] is None:
        return f"more than {most:,} [{low}, {high}]"
    return f"{values['answers']:,} ({values['of_random']:.2f} [{low}, {high}])"


def draw(results: Results) -> None:
    """Draw the curves, with the range of the seeds as bands."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "answers-needed"  # the same file for the same numbers
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.4), layout="constrained")
    for name, method in results["methods"].items():
        axes.plot(
            method["answers"], method["r"], color=COLORS[name], label=name, linewidth=1.4, marker="o", markersize=3
        )
        if name in ("random", "information"):
            low, high = (list(map(end, zip(*method["r_by_seed"], strict=True))) for end in (min, max))
            axes.fill_between(method["answers"], low, high, color=COLORS[name], alpha=0.12)
    for share in SHARES:
        axes.axhline(share * results["full_r"], color="grey", linestyle="--", linewidth=0.8)
        axes.text(57, share * results["full_r"], f"{share:.0%} of full r", fontsize=8, va="bottom")
    axes.set(xscale="log", xlabel="answers", ylim=(0.55, 0.78), ylabel="r with the mean rating, held-out texts")
    ticks = (60, 150, 500, 1000, 2000, 4000, 12000)
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    draw(results)
    before = PAGE.read_text(encoding="utf-8")
    part = r"(<!-- answers needed[^>]*-->\n).*?(<!-- end -->)"
    PAGE.write_text(re.sub(part, lambda m: m[1] + table(results) + m[2], before, flags=re.S), encoding="utf-8")
