"""Over-optimise a small reward model of people's ratings by best-of-n: `python -m docs.make_over_optimization`.

Writes docs/results/over-optimization.json, the picture docs/images/over-optimization.png, and the two tables and
sentences in docs/concepts/over-optimization.md. Ten seconds on a CPU.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_align.data.embedded.ratings import load_ratings
from hf_align.evaluation import best_of_n_course, sweep_weights
from hf_align.files import write_json, write_text
from hf_align.losses import bradley_terry_loss
from hf_align.report.over_optimization import draw_course
from hf_align.version import versions

DOCS = Path(__file__).parent
RESULTS, PICTURE, PAGE = (
    DOCS / "results" / "over-optimization.json",
    DOCS / "images" / "over-optimization.png",
    DOCS / "concepts" / "over-optimization.md",
)
PAIRS = {"400 pairs, a quarter flipped": (400, 0.25), "4,000 pairs, none flipped": (4000, 0.0)}
SAMPLES = 1024


def words_of(text: str) -> Counter[str]:
    """Words of a text with their counts."""
    return Counter(re.findall(r"[a-z']+", text.lower()))


def train_proxy(texts: list[str], ratings: np.ndarray, flipped: float, rng: np.random.Generator) -> Any:
    """A reward model that adds up a weight for each word, from pairs of neighbouring texts."""
    names = sorted({word for text in texts for word in words_of(text)})
    column = {word: number for number, word in enumerate(names)}

    def features(batch: list[str]) -> torch.Tensor:
        table = torch.zeros(len(batch), len(names))
        for row, text in enumerate(batch):
            for word, count in words_of(text).items():
                if word in column:
                    table[row, column[word]] = count
        return table

    table, mean = features(texts), torch.tensor(ratings)
    left, right = table[0::2], table[1::2]
    better = (mean[0::2] > mean[1::2]) ^ torch.tensor(rng.random(len(left)) < flipped)
    difference = torch.where(better[:, None], left - right, right - left)
    weight = torch.zeros(len(names), requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.05, weight_decay=1e-3)
    for _ in range(150):
        reward = difference @ weight
        loss = bradley_terry_loss(reward, torch.zeros_like(reward)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lambda batch: (features(batch) @ weight.detach()).numpy().astype(float)


def measure() -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of both proxies' courses on the same samples, and those of the front of liking and brevity."""
    rows, rng = load_ratings(), np.random.default_rng(0)
    order, all_texts, all_votes = rng.permutation(len(rows)), rows["text"][:], rows["ratings"][:]
    texts = [all_texts[int(row)] for row in order]
    halves = [[np.mean(votes[half::2]) for votes in (all_votes[int(row)] for row in order)] for half in (0, 1)]
    count = 2 * max(pairs for pairs, _ in PAIRS.values())
    groups = range(count, len(texts) - SAMPLES + 1, SAMPLES)
    judge = [np.asarray(halves[1][start : start + SAMPLES]) for start in groups]
    lengths = [np.asarray([len(text.split()) for text in texts[start : start + SAMPLES]]) for start in groups]
    courses = {}
    for name, (pairs, flipped) in PAIRS.items():
        proxy = train_proxy(texts[: 2 * pairs], np.asarray(halves[0][: 2 * pairs]), flipped, rng)
        scores = [proxy(texts[start : start + SAMPLES]) for start in groups]
        words = best_of_n_course(scores, lengths).judge.mean(0)
        courses[name] = best_of_n_course(scores, judge).figures() | {"words": [float(words[0]), float(words[-1])]}
    brevity = [-each for each in lengths]
    front = sweep_weights({"people like it": judge, "brevity (words)": brevity}, steps=4, n=16)
    return courses, front.figures()


def table_of(courses: dict[str, Any]) -> str:
    """Both judges' means by n, and what the fits say."""
    lines = [f"| n | KL, nats | {' | '.join(courses)} |", f"| ---: | ---: |{' --- |' * len(courses)}"]
    for place, point in enumerate(next(iter(courses.values()))["curve"]):
        cells = []
        for figures in courses.values():
            each = figures["curve"][place]
            low, high = each["judge_interval"]
            cells.append(f"{each['judge']:.2f} [{low:.2f}, {high:.2f}]")
        lines.append(f"| {point['at']} | {point['kl']:.2f} | {' | '.join(cells)} |")
    said = "\n\n".join(
        f"*{name}.* {figures['sentence']} The picked text has {figures['words'][0]:.0f} words on average at n = 1 and "
        f"{figures['words'][1]:.0f} at n = {figures['curve'][-1]['at']}."
        for name, figures in courses.items()
    )
    return "\n".join([*lines, "", said])


def front_of(front: dict[str, Any]) -> str:
    """The front as a table."""
    lines = [f"| weights | {' | '.join(front['objectives'])} | on the front |", "| --- | --- | --- | --- |"]
    for point in front["points"]:
        cells = [
            f"{value:.2f} [{low:.2f}, {high:.2f}]"
            for value, (low, high) in zip(point["values"], point["intervals"], strict=True)
        ]
        lines.append(f"| {point['label']} | {' | '.join(cells)} | {'yes' if point['on_front'] else 'dominated'} |")
    return "\n".join(lines)


def page(results: dict[str, Any]) -> str:
    """The page with the results' tables."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, table in (("course", table_of(results["courses"])), ("front", front_of(results["front"]))):
        start, end = f"<!-- {mark}: python -m docs.make_over_optimization -->", f"<!-- end of {mark} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    courses, front = measure()
    write_json(RESULTS, {"courses": courses, "front": front, "versions": versions(("numpy", "scipy", "torch"))})
    write_text(PAGE, page(json.loads(RESULTS.read_text(encoding="utf-8"))))
    draw_course(next(iter(courses.values())), PICTURE)
