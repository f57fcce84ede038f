"""Preference data made of the embedded sentences, with planted defects of every kind and the rows that have them.

The sentences are people's, so some have defects themselves. Clean rows are made only of those that

- end with a full stop, an exclamation or a question mark, perhaps behind it a quote or a bracket,
- have no phrase of two words more than twice, and none of four words twice,
- have 6 to 40 words (those of `make_pairs` have up to 40),
- are no other sentence but for case, punctuation and spaces: some tweets were posted twice.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hf_align.data.embedded.ratings import Domain, load_ratings
from hf_align.data.embedded.rows import make_pairs, make_rankings
from hf_align.data.minhash import NEAR
from hf_align.data.shingles import jaccard, shingles

Row = dict[str, Any]
ASKING = "Say this in other words: "
BOTH = ("chosen", "rejected")
SCORES = ("chosen_score", "rejected_score")
SHARES: Mapping[Domain, float] = {"movies": 0.6, "products": 0.25, "tweets": 0.15}
"""Tweets mostly end without a full stop."""


@dataclass
class Planted:
    """Rows with defects.

    Attributes:
        rows: The data set.
        held_out: An evaluation set.
        spare: Numbers of rows of the evaluation set that share nothing with the data set.
        truth: Numbers of the rows with each kind of defect.
    """

    rows: list[Row]
    held_out: list[Row]
    spare: list[int]
    truth: dict[str, set[int]] = field(default_factory=dict)


def is_clean(sentence: str) -> bool:
    """Whether a sentence follows the rules above."""
    words = re.findall(r"[\w@']+", sentence.lower())
    twos, fours = (Counter(zip(*(words[start:] for start in range(n)), strict=False)) for n in (2, 4))
    repeated = max(twos.values(), default=0) > 2 or max(fours.values(), default=0) > 1
    return 6 <= len(sentence.split()) <= 40 and re.search(r"[.!?][\"')\]]*$", sentence) is not None and not repeated


def clean_rows(n: int, seed: int = 0) -> list[Row]:
    """Pairs of texts under a prompt of their own each, with votes, a margin and scores.

    Args:
        n: Number of rows, at most about 3,000.
        seed: Of everything drawn.
    """
    pairs, others = material(seed)
    assert n <= min(len(pairs), len(others)), (n, len(pairs), len(others))
    rows = []
    for row, sentence in zip(pairs[:n], others, strict=False):
        chosen, rejected = (row[name][0]["content"] for name in BOTH)
        scores = [sum(row[f"{name}_ratings"]) / len(row[f"{name}_ratings"]) for name in BOTH]
        rows.append(
            {
                "prompt": ASKING + sentence,
                "chosen": chosen,
                "rejected": rejected,
                "margin": row["margin"],
                "votes": [1.0] * 5,
                "chosen_score": scores[0],
                "rejected_score": scores[1],
            }
        )
    return rows


@cache
def material(seed: int) -> tuple[list[Row], list[str]]:
    """Pairs of clean sentences, and other clean sentences; none of them may be changed."""
    seen: set[str] = set()

    def is_new(texts: Sequence[str]) -> bool:
        letters = {"".join(filter(str.isalnum, text.lower())) for text in texts}
        new = len(letters) == len(texts) and seen.isdisjoint(letters) and all(map(is_clean, texts))
        seen.update(letters)
        return new

    pairs = make_pairs("train", 4500, seed, openings=0, shares=SHARES).to_list()
    pairs = [row for row in pairs if is_new([row[name][0]["content"] for name in BOTH])]
    others = [text for text in load_ratings("train")["text"][:] if is_new([text])]
    random.Random(f"prompts/{seed}").shuffle(others)
    return pairs, others


def clean_rankings(n: int, seed: int = 0) -> list[Row]:
    """Rankings of four sentences as `make_rankings` has them."""
    rows: list[Row] = list(make_rankings("train", 1500, 4, seed).to_list())
    return [row for row in rows if all(is_clean(each[0]["content"]) for each in row["responses"])][:n]


def as_messages(row: Row) -> Row:
    """The row as a conversation; values that are no text stay."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    new = {name: [{"role": role, "content": row[name]}] for name, role in roles.items() if isinstance(row[name], str)}
    return {**row, **new}


def planted(n: int, share: float = 0.01, seed: int = 0, *, chat: bool = False) -> Planted:
    """Clean rows, of which a share each gets every kind of defect.

    Args:
        n: Number of rows.
        share: Share of them for each kind, rounded up to whole groups.
        seed: Of everything drawn.
        chat: Conversations instead of text.
    """
    spare = n // 10
    rows = clean_rows(n + spare, seed)
    data = Planted(rows[:n], rows[n:], list(range(spare)))
    rng = random.Random(f"planted/{seed}")
    free = rng.sample(range(n), n)
    count = max(3, round(n * share))
    for kind, plant in SINGLE.items():
        numbers = [free.pop() for _ in range(count)]
        for number in numbers if kind != "wrong_roles" or not chat else ():  # roles of messages are changed below
            data.rows[number] |= plant(data.rows[number], rng)
        data.truth[kind] = set(numbers)
    for kind, (size, plant) in GROUPS.items():
        groups = [[free.pop() for _ in range(size)] for _ in range(-(-count // size))]
        for group in groups:
            plant(data, group, rng)
        data.truth[kind] = {number for group in groups for number in group}
    if chat:
        data.rows, data.held_out = (list(map(as_messages, rows)) for rows in (data.rows, data.held_out))
        for number in data.truth["wrong_roles"]:
            data.rows[number] |= wrong_roles(data.rows[number], rng)
    return data


def side(rng: random.Random) -> str:
    return rng.choice(BOTH)


def cut_off(row: Row, rng: random.Random) -> Row:
    """A response cut between two letters, behind its third word."""
    name = side(rng)
    text = row[name]
    start = len(" ".join(text.split()[:3]))
    places = [place for place in range(start + 1, len(text) - 2) if text[place - 1 : place + 1].isalpha()]
    plain = [place for place in places if not re.search(r"[#@]\w*$|http\S*$|www\S*$", text[:place])]
    return {name: text[: rng.choice(plain)]}


def repetition(row: Row, rng: random.Random) -> Row:
    name = side(rng)
    text, words = row[name], row[name].split()
    loop = " ".join(words[-4:])
    return {name: rng.choice([f"{text} " * rng.randint(3, 6), text + f" {loop}" * rng.randint(6, 12)]).strip()}


def broken_encoding(row: Row, rng: random.Random) -> Row:
    name = rng.choice(("prompt", *BOTH))
    text = row[name]
    first, _, rest = text.partition(" ")
    added = f"{first} café – {rest}"
    broken = (
        added.encode().decode("latin-1"),
        "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in added.encode()),
        f"{first} \ufffd {rest}",
        f"{first} &amp; {rest}",
        f"{first}\x08 {rest}",
    )
    return {name: rng.choice(broken)}


def several_answers(row: Row, rng: random.Random) -> Row:
    name = side(rng)
    text, other = row[name], row["prompt"]
    return {
        name: rng.choice(
            [
                f"{text}\n\nHuman: {other}",
                f"{text}\nUser: {other}\nAssistant: Why not.",
                f"{text}\n\n### Instruction:\n{other}",
                f"{text}<|im_end|>\n<|im_start|>user\n{other}",
                f"Answer 1: {text}\nAnswer 2: {other}",
            ]
        )
    }


def wrong_roles(row: Row, rng: random.Random) -> Row:
    """Names of roles in texts; in conversations, roles out of order."""
    name, other = side(rng), {"role": "user", "content": "And what else?"}
    if isinstance(row["prompt"], str):
        return {name: f"{rng.choice(('Human', 'Assistant', 'User'))}: {row[name]}"}
    return rng.choice(
        [
            {"prompt": [*row["prompt"], other]},
            {"prompt": [*row["prompt"], {**other, "role": "system"}, other]},
            {name: [{**row[name][0], "role": "user"}]},
            {name: [*row[name], other]},
            {name: [{**row[name][0], "content": f"Assistant: {row[name][0]['content']}"}]},
        ]
    )


def bad_number(row: Row, rng: random.Random) -> Row:
    return rng.choice([{"margin": float("nan")}, {"margin": -1.0}, {"votes": [2.0]}, {"votes": []}])


def near_identical(row: Row, rng: random.Random) -> Row:
    one, other = rng.sample(BOTH, 2)
    return {other: rng.choice([row[one].upper(), f"{row[one]}!", row[one].replace(" ", "  ")])}


@cache
def sentences() -> list[str]:
    return [text for text in load_ratings("validation")["text"][:] if is_clean(text)]


def long_row(row: Row, rng: random.Random) -> Row:
    return {side(rng): " ".join(rng.sample(sentences(), 120))}


RUSSIAN = ("Это", "было", "очень", "хорошее", "кино", "и", "мы", "долго", "говорили", "потом", "там", "вечером", "дома")

SINGLE: dict[str, Callable[[Row, random.Random], Row]] = {
    "missing": lambda row, rng: {rng.choice(("prompt", *BOTH)): None},
    "empty_response": lambda row, rng: {side(rng): rng.choice(["", " \n", "\u200b"])},
    "identical_responses": lambda row, rng: {"rejected": row["chosen"]},
    "near_identical_responses": near_identical,
    "tied": lambda row, rng: {"votes": [0.5] * 5},
    "bad_number": bad_number,
    "repetition": repetition,
    "cut_off": cut_off,
    "broken_encoding": broken_encoding,
    "wrong_roles": wrong_roles,
    "several_answers": several_answers,
    "repeated_prompt": lambda row, rng: {name: f"{row['prompt']} {row[name]}" for name in BOTH},
    "double_bos": lambda row, rng: {(name := rng.choice(("prompt", *BOTH))): f"<s>{row[name]}"},
    "special_tokens": lambda row, rng: {(name := side(rng)): row[name].replace(" ", "<|end|> ", 1)},
    "missing_end": lambda row, rng: {(name := side(rng)): f"{row[name]}</s>"},
    "long_row": long_row,
    "score_contradicts": lambda row, rng: {
        "rejected_score": row["chosen_score"],
        "chosen_score": row["rejected_score"],
    },
    "low_agreement": lambda row, rng: {"votes": [1.0, 1.0, 1.0, 0.0, 0.0]},
    "small_margin": lambda row, rng: {"margin": 0.05},
    "language": lambda row, rng: {side(rng): " ".join(rng.sample(RUSSIAN, 9)) + "."},
}
"""Defects that a row has by itself: what changes in it."""


def duplicate_pair(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    first, second = group
    data.rows[second] = dict(data.rows[first])


def near_duplicate_pair(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    """A copy with a word more in one of its texts."""
    first, second = group
    row = data.rows[first]
    name = max(("prompt", *BOTH), key=lambda name: len(row[name]))
    words = row[name].split()
    words.insert(rng.randrange(2, len(words) - 1), "so")
    assert jaccard(shingles(row[name]), shingles(" ".join(words))) >= NEAR
    data.rows[second] = {**row, name: " ".join(words)}


def swapped(row: Row) -> Row:
    return {
        **row,
        **{name: row[other] for name, other in zip(BOTH, reversed(BOTH), strict=True)},
    }


def swapped_pair(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    first, second = group
    row = data.rows[first]
    scores = {"chosen_score": row["rejected_score"], "rejected_score": row["chosen_score"]}
    data.rows[second] = {**swapped(row), **scores, "votes": [0.0] * 5}


def contradicted_pair(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    first, second = group
    data.rows[second] = swapped(data.rows[first])


def response_under_many_prompts(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    text = data.rows[group[0]]["rejected"]
    for number in group:
        data.rows[number]["rejected"] = text


def cycle(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    """a > b, b > c, c > a."""
    rows = [data.rows[number] for number in group]
    texts = [row["chosen"] for row in rows]
    for number, row in enumerate(rows):
        row |= {"prompt": rows[0]["prompt"], "chosen": texts[number], "rejected": texts[(number + 1) % len(texts)]}


def shared_prompt(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    data.held_out[data.spare.pop()]["prompt"] = data.rows[group[0]]["prompt"]


def contaminated(data: Planted, group: Sequence[int], rng: random.Random) -> None:
    name, other = side(rng), side(rng)
    data.held_out[data.spare.pop()][other] = data.rows[group[0]][name]


GROUPS: dict[str, tuple[int, Callable[[Planted, Sequence[int], random.Random], None]]] = {
    "duplicate_pair": (2, duplicate_pair),
    "near_duplicate_pair": (2, near_duplicate_pair),
    "swapped_pair": (2, swapped_pair),
    "contradicted_pair": (2, contradicted_pair),
    "response_under_many_prompts": (6, response_under_many_prompts),
    "cycle": (3, cycle),
    "shared_prompt": (1, shared_prompt),
    "contaminated": (1, contaminated),
}
"""Defects that several rows have together, or with the evaluation set: of how many, and what is done to them."""
