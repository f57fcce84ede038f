import random

import pytest

from hf_align.data.duplicates import connected, near_duplicates, normalise, shingles, similarity
from hf_align.data.embedded.text import clean_text, has_words


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("an at &amp;#38; t store &amp; more", "an at & t store & more"),
        ("the ''best'' one", 'the "best" one'),
        ("all comics    even those who", "all comics – even those who"),
        (" enjoy  it\t now ", "enjoy it now"),
        ("@anonymous @anonymous: I know", "I know"),
        ("RT @anonymous Great talks http://url_removed http://url_removed", "Great talks"),
        (".@anonymous is off", "is off"),
        ("I told @anonymous about http://url_removed today", "I told @anonymous about http://url_removed today"),
        ("@anonymous :) fine", ":) fine"),
        ("@anonymous's dog", "@anonymous's dog"),
        ("http://url_removed", ""),
        ("ART of it", "ART of it"),
        ("I &lt;3 this &gt;", "I <3 this >"),
    ],
)
def test_clean_text(raw, clean):
    assert clean_text(raw) == clean
    assert clean_text(clean) == clean


def test_normalise_and_has_words():
    assert normalise("The FILM, @anonymous --  it's  (good)!") == "the film it s good"
    assert has_words("wow") and has_words("é là!")
    assert not any(has_words(text) for text in ("", "!", ") 3a.", ":) :)", "@anonymous 11?", "http://url_removed"))


def test_similarity_is_the_jaccard_index_of_5_grams():
    assert shingles("Abcdefg") == {"abcde", "bcdef", "cdefg"}
    assert shingles("abc") == {"abc"} and shingles("!!") == frozenset()
    assert similarity("abcdefg", "ABCDEFG!") == 1
    assert similarity("abcdefg", "abcdefh") == pytest.approx(2 / 4)
    assert similarity("", "!") == 0


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9, 1.0])
def test_near_duplicates_misses_none(threshold):
    rng = random.Random(0)
    words = "the film is a very good bad long story of two people who never meet again".split()
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(150)] + ["", "!", "..."]
    texts += [text.upper() + "!!" for text in texts[:20]]
    brute_force = [
        (i, j)
        for j in range(len(texts))
        for i in range(j)
        if shingles(texts[i]) and similarity(texts[i], texts[j]) >= threshold
    ]
    actual = near_duplicates(texts, threshold=threshold)
    assert actual == sorted(brute_force)
    assert len(actual) >= 20


def test_connected():
    assert connected(6, [(4, 5), (1, 2), (5, 1)]) == [0, 1, 1, 3, 1, 1]
    assert connected(2, []) == [0, 1]
