import re
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from hf_align.data import DOMAINS, load_ratings
from hf_align.data.duplicates import NEAR_DUPLICATE, similarity
from hf_align.data.embedded.rows import (
    MAX_WORDS,
    MIN_WORDS,
    heldout_sentences,
    make_pairs,
    make_prompts,
    make_rankings,
)
from hf_align.errors import UserError

NOUNS = {"movies": "movie|film", "products": "product|customer", "tweets": "tweet|Twitter"}


@pytest.fixture(scope="module")
def pairs():
    return make_pairs("train", 1200, seed=3).to_list()


@pytest.fixture(scope="module")
def prompts():
    return make_prompts("test", 200, seed=3).to_list()


@pytest.fixture(scope="module")
def judge():
    return pytest.importorskip("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()


def begins_with(text: str, opening: str) -> bool:
    """Whether `text` begins with the whole words of `opening`, whatever their case."""
    return re.match(re.escape(opening) + r"(?!\w)", text, re.IGNORECASE) is not None


def sides(row):
    return row["chosen"][0]["content"], row["rejected"][0]["content"]


def test_rows_are_conversations(pairs):
    for row in pairs:
        roles = [[message["role"] for message in row[side]] for side in ("prompt", "chosen", "rejected")]
        assert roles == [["user"], ["assistant"], ["assistant"]]


def test_sentences_are_real_ones_of_the_domain_and_split_used_once(pairs):
    rated = {(r["domain"], r["text"], *r["ratings"]) for r in load_ratings("train").to_list()}
    assert all((row["domain"], sides(row)[0], *row["chosen_ratings"]) in rated for row in pairs)
    assert all((row["domain"], sides(row)[1], *row["rejected_ratings"]) in rated for row in pairs)
    used = Counter((row["domain"], text) for row in pairs for text in sides(row))
    assert len(used) == 2400 and set(used.values()) == {1}
    assert all(MIN_WORDS <= len(text.split()) <= MAX_WORDS for _, text in used)


def test_margin_is_the_gap_of_the_means(pairs):
    gaps = [np.mean(row["chosen_ratings"]) - np.mean(row["rejected_ratings"]) for row in pairs]
    assert [row["margin"] for row in pairs] == pytest.approx(gaps, abs=1e-8)
    assert min(gaps) > 0.5
    low, middle, high = np.percentile(gaps, [10, 50, 90])
    assert low < 1 and 1.5 < middle < 2.5 and high > 3.5


def test_no_pair_of_near_copies(pairs):
    assert max(similarity(*sides(row)) for row in pairs) < NEAR_DUPLICATE


def test_domains_and_openings_have_their_share(pairs):
    assert Counter(row["domain"] for row in pairs) == {"movies": 360, "products": 360, "tweets": 480}
    opened = Counter(row["domain"] for row in pairs if row["opening"] is not None)
    assert opened["movies"] == opened["products"] == 180 and opened["tweets"] > 150
    repeats = Counter((row["domain"], row["opening"].casefold()) for row in pairs if row["opening"])
    assert max(repeats.values()) <= 4 and len(repeats) > 300


def test_openings_are_true_of_both_sentences(pairs):
    for row in pairs:
        content, opening = row["prompt"][0]["content"], row["opening"]
        if opening is None:
            assert not content.endswith(":") and ": " not in content
        else:
            assert content.endswith(f": {opening}") and len(opening.split()) in (2, 3)
            assert all(begins_with(text, opening) for text in sides(row))
            assert any(text.startswith(opening) for text in sides(row))


def test_the_openings_capitals_do_not_tell_the_better_one(pairs):
    told = [
        row["chosen"][0]["content"].startswith(row["opening"])
        for row in pairs
        if row["opening"] and sum(text.startswith(row["opening"]) for text in sides(row)) == 1
    ]
    assert len(told) > 20 and 0.3 < np.mean(told) < 0.7


def test_prompts_name_the_domain_and_no_polarity(pairs, prompts, judge):
    for row in pairs + prompts + heldout_sentences("test").to_list():
        content = row["prompt"][0]["content"]
        assert re.search(NOUNS[row["domain"]], content)
        # "Sentence" has a legal meaning in the lexicon.
        assert judge.polarity_scores(content.replace("sentence", "line"))["compound"] == 0, content


def test_length_does_not_give_the_chosen_one_away(pairs):
    lengths = np.array([[len(text.split()) for text in sides(row)] for row in pairs])
    assert abs(np.subtract(*lengths.mean(axis=0))) < 1
    assert 0.4 < np.mean(lengths[:, 0] > lengths[:, 1]) < 0.6


def test_seed_decides():
    first, again, other = (make_pairs("test", 40, seed)[:] for seed in (0, 0, 1))
    assert first == again != other
    first, again, other = (make_prompts("validation", 20, seed)[:] for seed in (0, 0, 1))
    assert first == again != other


def test_options():
    rows = make_pairs("test", 30, min_gap=2.0, openings=0.0, shares={"tweets": 1.0, "movies": 2.0}).to_list()
    assert Counter(row["domain"] for row in rows) == {"tweets": 10, "movies": 20}
    assert all(row["margin"] > 2 and row["opening"] is None for row in rows)
    # too few openings: prompts without one make up for it
    rows = make_pairs("test", 100, openings=1.0).to_list()
    assert len(rows) == 100 and 0 < sum(row["opening"] is not None for row in rows) < 100


def test_lengths_are_logged(caplog):
    with caplog.at_level("INFO", logger="hf_align"):
        make_pairs("test", 20)
    assert "20 pairs; mean length" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 100_000}, "train has sentences for .* pairs of movies, not 30000: ask for fewer"),
        ({"n": 0}, "n >= 1"),
        ({"openings": 1.5}, "openings in"),
        ({"shares": {"news": 1.0}}, "unknown domain 'news'"),
        ({"shares": {"movies": 0.0}}, "not all 0"),
        ({"split": "dev"}, "unknown split 'dev'"),
    ],
)
def test_impossible_pairs_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        make_pairs(**arguments)


def test_rankings_are_k_rated_sentences_of_one_domain_each_used_once():
    rows = make_rankings("test", 60, 5, seed=3).to_list()
    assert Counter(row["domain"] for row in rows) == {"movies": 18, "products": 18, "tweets": 24}
    rated = {(r["domain"], r["text"], *r["ratings"]) for r in load_ratings("test").to_list()}
    used = []
    for row in rows:
        texts = [each[0]["content"] for each in row["responses"]]
        assert row["prompt"][0]["role"] == "user" and row["responses"][0][0]["role"] == "assistant"
        assert all((row["domain"], text, *votes) in rated for text, votes in zip(texts, row["ratings"], strict=True))
        assert row["mean_rating"] == pytest.approx([np.mean(votes) for votes in row["ratings"]])
        assert row["liked"] == pytest.approx([np.mean(np.array(votes) > 0) for votes in row["ratings"]])
        assert all(similarity(a, b) < NEAR_DUPLICATE for a, b in combinations(texts, 2))
        used += texts
    assert len(used) == len(set(used)) == 300
    places = [np.argmax(row["mean_rating"]) for row in rows]
    assert set(places) == set(range(5)), "the best one's place gives nothing away"
    assert rows == make_rankings("test", 60, 5, seed=3).to_list() != make_rankings("test", 60, 5, seed=4).to_list()
    refused: list[tuple[dict[str, Any], str]] = [
        ({"n": 10_000}, "rows of movies"),
        ({"k": 1}, "k >= 2"),
        ({"n": 0}, "n >= 1"),
        ({"openings": 2}, "openings"),
    ]
    for arguments, message in refused:
        with pytest.raises(UserError, match=message):
            make_rankings(**arguments)


def test_rankings_with_an_opening_begin_with_it_and_use_no_sentence_twice():
    rows = make_rankings("train", 100, 8, openings=0.2).to_list()
    given = [row for row in rows if row["opening"]]
    assert Counter(row["domain"] for row in given) == {"movies": 6, "products": 6, "tweets": 8}
    for row in given:
        assert row["opening"] in row["prompt"][0]["content"]
        assert all(begins_with(each[0]["content"], row["opening"]) for each in row["responses"])
    texts = [each[0]["content"] for row in rows for each in row["responses"]]
    assert len(texts) == len(set(texts)) == 800
    assert all("Start with" not in row["prompt"][0]["content"] for row in rows if row["opening"] is None)


def test_make_prompts_gives_different_held_out_openings(prompts):
    assert len({row["prompt"][0]["content"] for row in prompts}) == 200
    openings = [row["opening"] for row in prompts]
    assert len({opening.casefold() for opening in openings}) == 200
    assert {len(opening.split()) for opening in openings} == {3, 4, 5}
    assert all(row["prompt"][0]["content"].endswith(f": {row['opening']}") for row in prompts)
    counts = Counter(row["domain"] for row in prompts)
    assert all(counts[domain] >= 40 for domain in DOMAINS)
    assert set(Counter(row["domain"] for row in make_prompts("test", 90).to_list()).values()) == {30}


def test_prompt_openings_come_from_the_split_and_no_training_sentence_begins_so(prompts):
    held_out = {domain: load_ratings("test", domain)["text"][:] for domain in DOMAINS}
    training = [text.casefold() for text in load_ratings("train")["text"]]
    for row in prompts:
        opening = row["opening"]
        sources = [text for text in held_out[row["domain"]] if text.startswith(opening)]
        assert any(len(text.split()) >= len(opening.split()) + 3 for text in sources)
        assert not any(text.startswith(opening.casefold()) and begins_with(text, opening) for text in training)


def test_training_prompts_share_no_opening_with_held_out_ones(prompts):
    held_out = {row["opening"].casefold() for row in prompts}
    rows = make_prompts("train", 600).to_list()
    assert len({row["opening"].casefold() for row in rows}) == 600
    assert not held_out & {row["opening"].casefold() for row in rows}
    assert set(Counter(row["domain"] for row in rows).values()) == {200}


def test_too_many_prompts_are_refused():
    with pytest.raises(UserError, match=r"test has \d+ different openings, so n must be in 1\.\.\d+, not 5000"):
        make_prompts("test", 5000)


def test_heldout_sentences_are_the_whole_split():
    rows = heldout_sentences("test")
    assert len(rows) == 530 + 184 + 209
    source = load_ratings("test")
    for name in ("text", "domain", "mean", "ratings", "source_id"):
        assert rows[name][:] == source[name][:]
    assert rows["response"][:] == [[{"role": "assistant", "content": text}] for text in rows["text"]]
    assert len({prompt[0]["content"] for prompt in rows["prompt"]}) == 3
    assert set(heldout_sentences("validation", "tweets")["domain"]) == {"tweets"}
