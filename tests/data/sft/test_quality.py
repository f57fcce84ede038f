"""Each part of the quality is 1 where nothing is wrong, and .5 at its limit."""

from __future__ import annotations

import pytest

from hf_align.data.embedded.ratings import load_ratings
from hf_align.data.sft.quality import parts_of, quality_of


def worst(text: str) -> tuple[str, float]:
    score, name = quality_of(parts_of(text))
    return name, score


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("The plot is the plot is the plot is the plot is the plot is the plot is the plot.", "repetition"),
        ("All good.\nAll good.\nAll good.\nAll good.\nA fine film.", "repetition"),
        ("很好看很好看很好看很好看很好看很好看很好看很好看", "repetition"),
        ("The cafÃ© isnâ€™t open, so we went home.", "encoding"),
        ("The caf\ufffd was closed all day long.", "encoding"),
        ("We saw the film, and then we went home because", "ending"),
        ("There were three of them,", "ending"),
        ("It runs like this:\n```python\nprint(1)", "ending"),
        ("-- | == | :: | ++ | a", "letters"),
        ("…", "length"),
    ],
)
def test_what_is_wrong_with_a_text_has_a_name(text: str, part: str) -> None:
    name, score = worst(text)
    assert name == part and score < 0.5


@pytest.mark.parametrize(
    "text",
    [
        "Yes.",
        "42",
        "3 + 4 = 7, so x = 7 / 2 = 3.5.",
        "def area(r):\n    return 3.14 * r ** 2\n\n\ndef double(r):\n    return 2 * area(r)",
        "- salt\n- pepper\n- oil\n\n```sh\nls -l | wc -l\n```",
        "| a | b |\n| --- | --- |\n| 1 | 2 |",
        "Knows its classical music, knows its Freud and knows its Sade.",
        "Sad to hear it :(",
        "这部电影很好看我和我的朋友都很喜欢。",
        "この映画はとても面白かったです。",
    ],
)
def test_short_answers_numbers_code_and_other_scripts_are_fine(text: str) -> None:
    assert worst(text)[1] >= 0.5


def test_phrases_that_stood_before_count_by_their_share_of_the_characters() -> None:
    words = [f"w{number:03d}" for number in range(95)]
    phrase = [f"r{number:03d}" for number in range(5)]
    text = [*words[:40], *phrase, *words[40:80], *phrase, *words[80:90]]
    assert parts_of(" ".join(text))["repetition"] == pytest.approx(1 - 5 / 100)


def test_the_score_falls_as_a_text_repeats_itself_more() -> None:
    sentence = "A warm film with a cast that never tires. "
    scores = [parts_of(sentence * times)["repetition"] for times in range(1, 6)]
    assert scores == sorted(scores, reverse=True) and scores[0] == 1 and scores[2] < 0.5


def test_people_s_sentences_are_good_but_for_those_that_repeat_themselves() -> None:
    texts = load_ratings("train")["text"][:3000]
    low = {text: worst(text) for text in texts if worst(text)[1] < 0.5}
    assert len(low) <= 0.003 * len(texts)
    assert sum(name == "repetition" for name, _ in low.values()) >= 0.8 * len(low)
