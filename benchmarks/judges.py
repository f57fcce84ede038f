"""Agreement with people, by gap, of a small language model, a reward model and VADER as judges of rated sentences.

    python -m benchmarks.judges --base BASE --reward REWARD --work WORK

BASE is the 135M language model (the quickstart's folder `base`), REWARD a reward model trained on the training
sentences (its `reward-merged`). Pairs are of two test sentences of one domain, drawn at random; what people prefer is
the order of their mean ratings. The language model is asked in several wordings about validation pairs first; the one
that agrees best with people there goes on to the test pairs, beside the default wording. Its position bias is measured
on validation pairs, without their ratings. Answers are stored in WORK block by block and results one by one, so the
command resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.results import origin
from hf_align.collators.rows import Side
from hf_align.data.comparisons import Comparisons
from hf_align.data.embedded.rows import heldout_sentences
from hf_align.feedback import LanguageModelJudge, RewardJudge, measure_judge
from hf_align.feedback.judges.agreement import GAPS
from hf_align.feedback.judges.language_model import position_bias
from hf_align.feedback.judges.measure import read_people
from hf_align.feedback.judges.question import Question
from hf_align.files import finite, write_json, write_text
from hf_align.rewards.judges import Judge, Judgement, judge_orders
from hf_align.rewards.vader import vader_judge

RESULTS = Path(__file__).parent / "results" / "judges"
BLOCK = 32
"""Answers stored at once."""
_BOTH = "Sentence A: {first}\n\nSentence B: {second}\n\n"
_SHOWN = (
    ("The food was cold and the waiter rude.", "What a lovely evening!", "B"),
    ("It works like a charm.", "It broke after a day.", "A"),
)
WORDINGS: Mapping[str, tuple[str | None, str | None]] = {
    "default": (None, None),
    "principle": (None, "The better response says something more positive."),
    "positive": (
        "Two sentences for the request: {prompt}\n\n" + _BOTH + "Which one is more positive? Answer A or B.",
        None,
    ),
    "happier": (
        "Two people were asked: {prompt}\n\nA wrote: {first}\n\nB wrote: {second}\n\nWho is happier? Answer A or B.",
        None,
    ),
    "sentiment": (
        "Compare the sentiment of two sentences ({prompt}).\n\n" + _BOTH + "The sentence with the better sentiment is",
        None,
    ),
    "examples": (
        "Which sentence is more positive?\n\n"
        + "".join(f"{_BOTH.format(first=a, second=b)}Answer: {answer}\n\n" for a, b, answer in _SHOWN)
        + "These two are for the request: {prompt}\n\n"
        + _BOTH
        + "Answer:",
        None,
    ),
}
"""Templates and principles by name; the default ones are None."""


class Asks(Protocol):
    """What a language model judge is for `Remembered`."""

    def log_odds(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> NDArray[np.float64]:
        """Log-odds of A."""
        ...


class Remembered:
    """A language model as a judge, whose answers are stored as they come.

    A stored answer is given once; the same question again is asked again, so that what is left of the position effect
    is measured and not remembered.

    Args:
        wording: Key of `WORDINGS`.
        load: Loads the model when an answer is missing.
        path: File of the answers, a line for each.
        bias: Log-odds subtracted from each answer.
    """

    def __init__(self, wording: str, load: Callable[[], Asks], path: Path, bias: float = 0.0) -> None:
        self.name, self.load, self.path, self.bias = f"language model, {wording}", load, path, bias
        self.question = Question(*WORDINGS[wording])
        self.stored: dict[str, float] = {}
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            if lines and not lines[-1].endswith("\n"):  # cut off by a stop
                write_text(path, "".join(lines := lines[:-1]))
            self.stored = dict(map(json.loads, lines))

    @cached_property
    def model(self) -> Asks:
        """The model, loaded."""
        return self.load()

    def log_odds(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> NDArray[np.float64]:
        """`[N]` log-odds of A, stored ones first."""
        asked = list(zip(prompts, firsts, seconds, strict=True))
        keys = [blake2b(self.question.text(*each).encode(), digest_size=12).hexdigest() for each in asked]
        odds = [self.stored.pop(key, None) for key in keys]
        missing = [place for place, value in enumerate(odds) if value is None]
        for start in range(0, len(missing), BLOCK):
            places = missing[start : start + BLOCK]
            fresh = self.model.log_odds(*zip(*(asked[place] for place in places), strict=True)).tolist()
            with self.path.open("a") as file:
                file.writelines(f"{json.dumps([keys[n], value])}\n" for n, value in zip(places, fresh, strict=True))
            for place, value in zip(places, fresh, strict=True):
                odds[place] = value
        return np.array(odds, dtype=float)

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """As `LanguageModelJudge.compare`."""
        return judge_orders(lambda *pairs: expit(self.log_odds(*pairs) - self.bias).tolist(), prompts, firsts, seconds)


def both_orders(judge: Remembered, data: Comparisons, pairs: int) -> NDArray[np.float64]:
    """`[2, P]` log-odds of A about the first pairs of the data, with the first one shown first, then second."""
    first, second = ([data.texts[n] for n in data.text_of[side[:pairs]]] for side in (data.first, data.second))
    prompts = [each.prompt for each in first]
    texts = [each.text for each in first], [each.text for each in second]
    return np.stack([judge.log_odds(prompts, *texts), judge.log_odds(prompts, *reversed(texts))])


def choice(odds: NDArray[np.float64], better: NDArray[np.intp], bias: float) -> dict[str, float]:
    """Agreement with people of answers `[2, P]` in both orders, ties half, and the share of choices that flip."""
    forward, backward = np.sign(odds[0] - bias), -np.sign(odds[1] - bias)
    decided = better != 0
    verdict = np.where(forward == backward, forward, 0)
    agreed = (1 + verdict[decided] * better[decided]) / 2
    return {"agreement": float(agreed.mean()), "flips": float((forward * backward < 0).mean())}


def try_wordings(base: str, work: Path, pairs: int, seed: int) -> dict[str, dict[str, float]]:
    """Each wording's bias, and agreement and flips with and without it, on validation pairs."""
    data = read_people(heldout_sentences("validation"), pairs, seed)
    found = {}
    for wording in WORDINGS:
        judge = Remembered(wording, partial(load, base, wording), work / f"validation-{pairs}-{seed}-{wording}.jsonl")
        odds = both_orders(judge, data, pairs)
        bias, better = position_bias(odds.ravel()), data.better[:pairs]
        raw, corrected = (choice(odds, better, each) for each in (0.0, bias))
        found[wording] = {"bias": bias, **{f"raw_{name}": value for name, value in raw.items()}, **corrected}
        print(wording, {name: round(value, 3) for name, value in found[wording].items()}, flush=True)
    return found


def load(base: str, wording: str) -> LanguageModelJudge:
    """The language model with a wording's question."""
    template, principle = WORDINGS[wording]
    return LanguageModelJudge(base, prompt=template, principle=principle)


def people_by_gap() -> list[dict[str, Any]]:
    """People's own agreement over all pairs of test sentences of one domain, by gap."""
    data = read_people(heldout_sentences("test"))
    place = np.searchsorted(GAPS, data.gap, side="left")
    shares = data.vote_agreement
    parts = [(data.better != 0) & (place == number) for number in range(len(GAPS) + 1)]
    return [{"pairs": int(part.sum()), "people": float(shares[part].mean())} for part in parts]


def table(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Lines of the Markdown table: people, then each judge."""
    some = next(iter(results.values()))["metrics"]["agreement"]
    columns = ["", "all", *map(_bucket, some["by_gap"]), "flips", "first shown", "left after", "pull of length", "fit"]
    people = ["single people", _share(some, "people"), *(_share(part, "people") for part in some["by_gap"])]
    lines = [columns, ["---"] * len(columns), [*people, *[""] * (len(columns) - len(people))]]
    for name, result in results.items():
        metrics = result["metrics"]
        position, verdicts, length = (metrics[key] for key in ("position", "verdicts", "length"))
        lines.append(
            [
                name,
                *(_share(part, "judge") for part in (metrics["agreement"], *metrics["agreement"]["by_gap"])),
                "sees no order" if verdicts["flips"] is None else _share(verdicts, "flips"),
                "" if position["first_shown"] is None else _share(position, "first_shown"),
                f"{position['effect_after']:+.4f}",
                "{:+.2f} [{:+.2f}, {:+.2f}]".format(length["weight"], *length["weight_interval"]),
                "yes" if metrics["fit"]["fit"] else "**not fit**",
            ]
        )
    return [f"| {' | '.join(line)} |" for line in lines]


def _bucket(part: Mapping[str, Any]) -> str:
    return f"gap > {part['low']:g}" if part["high"] is None else f"{part['low']:g} to {part['high']:g}"


def _share(figures: Mapping[str, Any], name: str) -> str:
    low, high = figures[f"{name}_interval"]
    return f"{figures[name]:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".")


def main(arguments: argparse.Namespace) -> None:
    """Measure the judges that aren't measured yet, and print the table."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    settings = {name: getattr(arguments, name) for name in ("pairs", "again", "validation_pairs", "seed")}
    command = "python -m benchmarks.judges " + " ".join(arguments.shown)
    about = {"command": command, **origin(), "settings": settings}
    measure = partial(measure_once, arguments, about)
    results = {
        "VADER": measure("VADER", lambda: RewardJudge(vader_judge, "VADER")),
        "reward model": measure("reward model", lambda: RewardJudge(str(arguments.reward), "reward model")),
    }
    wordings = try_wordings(arguments.base, arguments.work, arguments.validation_pairs, arguments.seed)
    best = max(wordings, key=lambda name: wordings[name]["agreement"])
    everybody = {"people_all_test_pairs": people_by_gap(), "wordings": wordings, "templates": WORDINGS, "chosen": best}
    write_json(arguments.out / "wordings.json", finite({**about, **everybody}))
    for wording in dict.fromkeys([best, "default"]):
        path = arguments.work / f"test-{arguments.pairs}-{arguments.seed}-{wording}.jsonl"
        for bias, said in ((0.0, ""), (wordings[wording]["bias"], ", bias subtracted")):
            name = f"135M, {wording}{said}"
            judge = partial(Remembered, wording, partial(load, arguments.base, wording), path, bias)
            results[name] = measure(name, judge)
    print("\n".join(table(results)))


def measure_once(
    arguments: argparse.Namespace, about: dict[str, Any], name: str, judge: Callable[[], Judge]
) -> dict[str, Any]:
    """A judge's figures on test pairs, from its file if it is there."""
    path = arguments.out / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    if not path.exists():
        sentences = heldout_sentences("test")
        report = measure_judge(
            judge(), sentences, max_pairs=arguments.pairs, again=arguments.again, seed=arguments.seed
        )
        write_json(path, {**about, **report.to_json()})
    result = json.loads(path.read_text())
    print(name, result["metrics"]["fit"], flush=True)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--reward", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--again", type=int, default=100)
    parser.add_argument("--validation-pairs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    before = ["", *sys.argv[1:]]  # a path becomes its option's name
    parsed.shown = [b[2:].upper() if "/" in each else each for b, each in zip(before, sys.argv[1:], strict=False)]
    main(parsed)
