import random

import numpy as np
import pytest

from hf_align.data import duplicates
from hf_align.data.embedded.ratings import load_ratings
from hf_align.data.shingles import hash_shingles, jaccard, normalise_all, shingles, shingles_of

ODD = [
    "",
    " \n",
    "!?",
    "?!",
    "a",
    "ab c",
    "我",
    "我们",
    "很好看。很好看",
    "Hi 我",
    "看a",
    "👍",
    "👍🏻",
    "ﬁne ①",
    "हिन्दी",
    "\ud800x",
]


def normalised(text: str) -> str:
    return normalise_all([text]).text(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The FILM --  it's\n(good)!", "the film it s good"),
        ("ﬁne ①, \uff46ull", "fine 1 full"),  # NFKC
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        ("C++ > C#", "c++ > c"),  # symbols count, punctuation doesn't
        ("👍🏻 ok", "👍🏻 ok"),
        ("हिन्दी", "हिन्दी"),  # vowel signs belong to words
        (" ?! ...", "?! ..."),  # nothing else
        (" \t", ""),
    ],
)
def test_texts_are_normalised_to_letters_symbols_and_single_spaces(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_each_text_of_a_batch_is_normalised_as_it_is_alone() -> None:
    letters = normalise_all(ODD)
    assert [letters.text(n) for n in range(len(ODD))] == [normalised(text) for text in ODD]
    assert len(normalise_all([]).starts) == 1


def test_pieces_are_runs_of_five_of_two_in_cjk_and_the_whole_text_where_it_is_shorter() -> None:
    assert shingles("Abcdef!") == {"abcde", "bcdef"}
    assert shingles("很好看") == {"很好", "好看"}
    assert shingles("ab很好") == {"很好"} and shingles("很b") == {"很b"}
    assert shingles("abc") == {"abc"} and shingles("!!") == {"!!"} and shingles(" ") == frozenset()
    assert jaccard(shingles("abcdefg"), shingles("abcdefh")) == 2 / 4
    assert jaccard(shingles(""), shingles("")) == 0


def test_short_texts_are_alike_only_if_they_are_equal() -> None:
    short = ["yes", "no", "👍", "👎", "是", "否", "?", "!", "C", "C++", "no 1", "1"]
    sets = [shingles(text) for text in short]
    assert all(jaccard(a, b) == (n == m) for n, a in enumerate(sets) for m, b in enumerate(sets))


def test_english_words_are_cut_as_those_of_the_embedded_data() -> None:
    texts = [text for text in load_ratings("test")["text"][:] if text.isascii() and not set(text) & set("@_$+<=>^`|~")]
    texts = [text for text in texts if "http" not in text]
    assert len(texts) > 500
    assert all(shingles(text) == duplicates.shingles(text) for text in texts)


def test_hashes_are_equal_exactly_where_pieces_are() -> None:
    rng = random.Random(0)
    texts = ODD + ["".join(rng.choices("ab 我们👍!", k=rng.randrange(12))) for _ in range(300)]
    letters = normalise_all(texts)
    hashes = hash_shingles(letters)
    cut = [np.unique(hashes.values[a:b]) for a, b in zip(hashes.starts, hashes.starts[1:], strict=False)]
    sets = [shingles_of(letters.text(n)) for n in range(len(texts))]
    assert [len(each) for each in cut] == [len(each) for each in sets]
    for _ in range(3000):
        a, b = rng.randrange(len(texts)), rng.randrange(len(texts))
        assert len(np.intersect1d(cut[a], cut[b])) == len(sets[a] & sets[b])
