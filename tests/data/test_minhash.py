import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from hf_align.data import minhash
from hf_align.data.duplicates import near_duplicates
from hf_align.data.embedded.ratings import load_ratings
from hf_align.data.minhash import PLACES, MinHash, clusters, has_rensa, similarities, sketch
from hf_align.data.shingles import Hashes, jaccard, shingles

BACKENDS = [
    False,
    pytest.param(True, marks=pytest.mark.skipif(not has_rensa(), reason="rensa isn't installed")),
]
WORDS = "a film that made me laugh and cry with its slow warm story of two old friends by the sea".split()
KINDS = {
    "sentences": WORDS,
    "chinese": list("这部电影让我又哭又笑讲了两个老朋友在海边慢慢温暖的故事而且画面很美"),
    "emoji": [chr(code) for code in range(0x1F600, 0x1F640)],
}


def fetch_from(texts: Sequence[str]) -> Callable[[Sequence[int]], list[str]]:
    return lambda numbers: [texts[number] for number in numbers]


def near_pairs(texts: Sequence[str], threshold: float = 0.8, *, rensa: bool = False) -> set[tuple[int, int]]:
    sketches = MinHash(threshold, rensa=rensa)
    for start in range(0, len(texts), 700):
        sketches.add(texts[start : start + 700])
    return {(a, b) for a, b in sketches.near_pairs(fetch_from(texts)).tolist()}


def test_places_agree_with_the_probability_of_the_jaccard_similarity() -> None:
    rng = np.random.default_rng(0)
    for size, shared in ((1, 0), (1, 1), (5, 3), (12, 9), (60, 50), (400, 200)):
        n = 1000
        own = rng.integers(0, 2**63, (2, n, size - shared), dtype=np.uint64)
        both = rng.integers(0, 2**63, (n, shared), dtype=np.uint64)
        starts = np.arange(n + 1) * size
        first, second = (sketch(Hashes(np.concatenate([both, each], axis=1).ravel(), starts)) for each in own)
        similarity = shared / (2 * size - shared)
        expected = similarity + (1 - similarity) / 256  # a byte agrees by chance
        agree = (first == second).mean(axis=1)
        spread = np.sqrt(similarity * (1 - similarity) / PLACES)
        assert abs(agree.mean() - expected) < 4 * (spread + 0.01) / np.sqrt(n)
        # The places are at least as good as independent values, in short texts, too.
        assert agree.std() < 1.1 * spread + 0.011


def test_a_sketch_depends_on_the_set_alone() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**63, 40, dtype=np.uint64)
    again = rng.permutation(np.concatenate([values, values[:20]]))
    texts = Hashes(np.concatenate([values, again, values[:3]]), np.array([0, 40, 100, 103]))
    first, second, third = sketch(texts)
    assert (first == second).all() and not (first == third).all()
    assert sketch(Hashes(values[:0], np.array([0, 0, 0]))).shape == (2, PLACES)


@pytest.mark.parametrize("rensa", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_nearly_all_edits_at_the_threshold_are_found(kind: str, rensa: bool) -> None:
    rng = random.Random(0)
    space = " " if kind == "sentences" else ""
    originals, edited = [], []
    while len(edited) < 400:
        words = rng.choices(KINDS[kind], k=rng.randrange(50, 80) if kind == "emoji" else rng.randrange(6, 40))
        changed = list(words)
        for _ in range(rng.randrange(1, 3)):
            changed[rng.randrange(len(changed))] = rng.choice(KINDS[kind])
        texts = space.join(words), space.join(changed)
        if 0.8 <= jaccard(*map(shingles, texts)) < 0.9:
            originals.append(texts[0])
            edited.append(texts[1])
    found = near_pairs(originals + edited, rensa=rensa)
    assert np.mean([(n, n + 400) in found for n in range(400)]) >= 0.99


@pytest.mark.parametrize("rensa", BACKENDS)
@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_what_is_found_is_what_the_exact_search_finds(threshold: float, rensa: bool) -> None:
    texts = load_ratings("train", "tweets")["text"][:1500]
    exact = set(near_duplicates(texts, threshold=threshold, cut=shingles))
    found = near_pairs(texts, threshold, rensa=rensa)
    assert found <= exact and len(found) >= 0.97 * len(exact) > 3


@pytest.mark.slow
@pytest.mark.parametrize("rensa", BACKENDS)
def test_no_sentence_of_the_embedded_data_is_merged_falsely(rensa: bool) -> None:
    texts = load_ratings()["text"][:]
    found = near_pairs(texts, rensa=rensa)
    assert found <= set(near_duplicates(texts, threshold=0.8))  # which leaves out placeholders, too
    exact = set(near_duplicates(texts, threshold=0.8, cut=shingles))
    assert found <= exact and len(found) >= 0.99 * len(exact) > 400


def test_short_and_empty_texts_are_near_only_where_they_are_equal() -> None:
    texts = ["Yes.", "No.", "yes", "👍", "👎", "👍", "是", "否", "是。", "", "", "?", "!", "?", "Yes, it is."]
    assert near_pairs(texts) == {(0, 2), (3, 5), (6, 8), (11, 13)}


def test_a_crowd_of_equal_texts_is_compared_with_neighbours_only() -> None:
    crowd = [f"The answer to your question is: {'yes' if n % 2 else 'yes!'}" for n in range(3000)]
    sketches = MinHash(rensa=False)
    sketches.add(crowd)
    pairs = sketches.candidates()
    assert len(pairs) <= 2 * minhash.PARTNERS * len(crowd)
    found = clusters(len(crowd), pairs, lambda links: similarities(links, fetch_from(crowd)) >= 0.8)
    assert found.longest_chain == len(crowd) and found.sizes[0] > minhash.PARTNERS


def test_texts_may_be_looked_for_among_some_of_all() -> None:
    texts = ["It rained all day in Spain.", "It rained all day in Spain!", "It rained all day, in Spain."]
    sketches = MinHash(rensa=False)
    sketches.add(texts)
    assert sketches.near_pairs(fetch_from(texts), np.array([0, 2])).tolist() == [[0, 2]]
    assert len(sketches) == 3 and len(MinHash(rensa=False).candidates()) == 0


def test_texts_are_matched_with_stored_ones_without_being_stored() -> None:
    texts = load_ratings("test")["text"][:400]
    sketches = MinHash(rensa=False)
    sketches.add(texts[:250])
    asked = [f"{text} ok" for text in texts[200:]]
    pairs = sketches.matches(asked)
    near = pairs[similarities(pairs, fetch_from(asked), fetch_from(texts)) >= 0.8]
    first, second = ([shingles(text) for text in each] for each in (asked, texts[:250]))
    exact = [(a, b) for a, one in enumerate(first) for b, other in enumerate(second) if jaccard(one, other) >= 0.8]
    assert {tuple(pair) for pair in near.tolist()} == set(exact) and len(exact) > 30
    assert len(sketches) == 250
    sketches.add(asked[100:])
    assert [100, 250] in sketches.matches(asked).tolist()


def test_similarities_of_two_lists_are_those_of_their_texts() -> None:
    ours, theirs = ["abcdefg", "xyz"], ["abcdefh", "abcdefg"]
    pairs = np.array([[0, 0], [0, 1], [1, 1]])
    assert similarities(pairs, fetch_from(ours), fetch_from(theirs)).tolist() == [0.5, 1, 0]


def test_clusters_are_linked_to_their_medoid_and_chains_are_cut() -> None:
    pairs = np.array([[1, 2], [2, 3], [3, 4], [4, 5], [6, 7]])
    chain = clusters(8, pairs, lambda links: np.ones(len(links), bool))
    # 2 has as many partners as 3 and 4 and comes first; 4 is left with 5.
    assert chain.medoid.tolist() == [0, 2, 2, 2, 4, 4, 6, 6]
    assert chain.sizes == (3, 2, 2) and chain.longest_chain == 5
    assert chain.members.tolist() == [1, 2, 3, 4, 5, 6, 7] and chain.copies.tolist() == [1, 3, 5, 7]
    nothing = clusters(3, np.zeros((0, 2), np.int64), lambda links: np.ones(len(links), bool))
    assert nothing.medoid.tolist() == [0, 1, 2] and nothing.sizes == () and nothing.longest_chain == 0


def test_a_candidate_that_isn_t_near_its_medoid_may_join_another() -> None:
    # 0 is a candidate of all, but only near 1; 2 and 3 are near each other.
    pairs = np.array([[0, 1], [0, 2], [0, 3], [2, 3]])
    near = [(0, 1), (2, 3)]
    found = clusters(4, pairs, lambda links: np.array([tuple(sorted(link)) in near for link in links.tolist()]))
    assert found.medoid.tolist() == [0, 0, 2, 2] and found.sizes == (2, 2) and found.longest_chain == 4


def test_a_limit_on_comparisons_is_kept_and_said() -> None:
    pairs = np.array([[0, 1], [2, 3], [4, 5]])
    asked = []

    def near(links: np.ndarray) -> np.ndarray:
        asked.extend(links.tolist())
        return np.ones(len(links), bool)

    found = clusters(6, pairs, near, most=2)
    assert len(asked) == 2 and found.sizes == (2, 2) and not found.complete
    assert clusters(6, pairs, near, most=3).complete


def test_clusters_of_texts_are_near_their_medoids() -> None:
    sentence = "It rained all day long in the whole north of Spain, and nobody minded."
    texts = [sentence, "Sun.", sentence.replace("rained", "rains"), sentence.replace("minded", "cares"), "sun"]
    sketches = MinHash(rensa=False)
    sketches.add(texts)
    found = clusters(5, sketches.candidates(), lambda pairs: similarities(pairs, fetch_from(texts)) >= 0.8)
    assert found.medoid.tolist() == [0, 1, 0, 0, 1] and found.sizes == (3, 2)
