import random

import numpy as np

from hf_align.data.ngrams import hash_ngrams, hash_words
from hf_align.data.shingles import normalise_all


def words_of(text: str) -> list[str]:
    """Words by hand: each of the Chinese characters used here is one."""
    for character in "我们好":
        text = text.replace(character, f" {character} ")
    return text.split()


def runs_of(text: str, size: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))} if words else set()


def test_runs_of_words_are_equal_exactly_where_their_hashes_are() -> None:
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["a", "bc", "我", "好b", "a我们", "x"], k=rng.randrange(7))) for _ in range(200)]
    letters = normalise_all(texts)
    words = hash_words(letters)
    assert np.diff(words.starts).tolist() == [len(words_of(text)) for text in texts]
    known: dict[int, str] = {}
    for value, word in zip(words.values.tolist(), (word for text in texts for word in words_of(text)), strict=True):
        assert known.setdefault(value, word) == word
    assert len(known) == len(set(known.values()))
    for size in (1, 3):
        hashes = hash_ngrams(letters, size)
        cut = [set(hashes.values[a:b].tolist()) for a, b in zip(hashes.starts, hashes.starts[1:], strict=False)]
        runs = [runs_of(text, size) for text in texts]
        assert [len(each) for each in cut] == [len(each) for each in runs]
        for _ in range(2000):
            a, b = rng.randrange(len(texts)), rng.randrange(len(texts))
            assert len(cut[a] & cut[b]) == len(runs[a] & runs[b])


def test_a_text_of_fewer_words_is_one_run_that_no_longer_text_has() -> None:
    hashes = hash_ngrams(normalise_all(["I do not know.", "I do not know it all.", "i do NOT know", "", "?"]), 5)
    assert np.diff(hashes.starts).tolist() == [1, 2, 1, 0, 1]
    assert hashes.values[0] == hashes.values[3] and hashes.values[0] not in hashes.values[1:3]
