"""The embedded file: counts, re-derived splits, size, and the loader."""

import re
from collections import Counter

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from hf_align.data.duplicates import NEAR_DUPLICATE, shingles
from hf_align.data.embedded.ratings import DOMAINS, LICENSE_FILE, RATINGS_FILE, SPLITS, load_ratings
from hf_align.data.embedded.splits import assign_splits, group_rows
from hf_align.data.embedded.text import clean_text, has_words
from hf_align.errors import UserError

COUNTS = {"movies": (9545, 530, 530), "products": (3335, 184, 184), "tweets": (3778, 209, 209)}


@pytest.fixture(scope="module")
def ratings():
    return load_ratings()


def test_size_and_counts(ratings):
    assert RATINGS_FILE.stat().st_size <= 2 * 1024 * 1024
    counts = Counter(zip(ratings["domain"], ratings["split"], strict=True))
    assert counts == {(d, s): n for d, per_split in COUNTS.items() for s, n in zip(SPLITS, per_split, strict=True)}
    for per_split in COUNTS.values():
        assert np.allclose(np.array(per_split) / sum(per_split), [0.9, 0.05, 0.05], atol=0.002)


def test_no_newspaper_rows(ratings):
    # The newspaper's ids are `article_sentence` like the products', so look for its words as well.
    assert set(ratings["domain"]) == {"movies", "products", "tweets"}
    assert max(int(i.split("_")[0]) for i in load_ratings(domain="products")["source_id"]) == 309
    assert all(i.isdigit() for domain in ("movies", "tweets") for i in load_ratings(domain=domain)["source_id"])
    assert sum("republican" in text.lower() for text in ratings["text"]) < 20


def test_texts_are_clean_and_votes_are_whole(ratings):
    texts, votes = ratings["text"][:], ratings["ratings"][:]
    assert all(text == clean_text(text) and has_words(text) for text in texts)
    assert not any(re.search(r"&#?\w+;|''|�|Ã|â€", text) for text in texts)
    assert {vote for each in votes for vote in each} == set(range(-4, 5))
    assert (min(map(len, votes)), max(map(len, votes))) == (15, 99)
    assert ratings["mean"][:] == pytest.approx([np.mean(each) for each in votes])
    keys = list(zip(ratings["domain"], ratings["source_id"], strict=True))
    assert len(set(keys)) == len(keys)


def test_known_rows():
    movies = load_ratings("train", "movies")
    row = movies[movies["source_id"][:].index("3")]
    assert row["text"] == "Effective but too tepid biopic"
    assert row["ratings"] == [-1, 0, -1, 0, -1, -1, -1, -1, 0, -2, 1, 1, -1, -1, -1]
    assert row["mean"] == pytest.approx(-0.6)
    tweets = load_ratings(domain="tweets")
    row = tweets[tweets["source_id"][:].index("2")]  # the source's mean for this text is a different one
    assert row["text"] == "Yay. Another good phone interview."
    assert row["mean"] == pytest.approx(224 / 99) and len(row["ratings"]) == 99


@pytest.mark.slow
def test_splits_follow_from_the_stored_texts(ratings):
    groups = group_rows(ratings["domain"][:], ratings["source_id"][:], ratings["text"][:])
    assert assign_splits(groups) == ratings["split"][:]


def test_nothing_crosses_the_splits(ratings):
    """By another method than the build's: all held-out texts against all texts, as a product of sparse matrices."""
    split = np.array(ratings["split"][:])
    rows = [shingles(text) for text in ratings["text"]]
    column = {shingle: i for i, shingle in enumerate(sorted(set().union(*rows)))}
    flat = [column[shingle] for row in rows for shingle in row]
    sizes = np.array([len(row) for row in rows])
    matrix = csr_matrix((np.ones(len(flat), np.int32), flat, np.append(0, np.cumsum(sizes))))
    for i in np.array_split(np.flatnonzero(split != "train"), 20):
        shared = (matrix[i] @ matrix.T).tocoo()
        union = sizes[i][shared.row] + sizes[shared.col] - shared.data
        similar = shared.data >= NEAR_DUPLICATE * union
        assert (split[i][shared.row[similar]] == split[shared.col[similar]]).all()
    products = load_ratings(domain="products")
    reviews = {(i.split("_")[0], s) for i, s in zip(products["source_id"], products["split"], strict=True)}
    assert len(reviews) == len({review for review, _ in reviews}) > 290


def test_neutral_words_are_neutral_to_the_judge(ratings):
    judge = pytest.importorskip("vaderSentiment.vaderSentiment").SentimentIntensityAnalyzer()
    openings = {
        " ".join(text.split()[:words]) for text, words in zip(ratings["text"], ratings["neutral_words"], strict=True)
    }
    assert len(openings) > 5000
    assert [opening for opening in openings if opening and judge.polarity_scores(opening)["compound"] != 0] == []


def test_load_ratings_selects_and_refuses():
    assert len(load_ratings("validation")) == 530 + 184 + 209
    assert len(load_ratings(domain="products")) == 3703
    test_tweets = load_ratings("test", "tweets")
    assert set(test_tweets["split"]) == {"test"} and set(test_tweets["domain"]) == {"tweets"}
    with pytest.raises(UserError, match="unknown split 'dev': use one of train, validation, test"):
        load_ratings("dev")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="unknown domain 'news'"):
        load_ratings(domain="news")  # pyright: ignore[reportArgumentType]


def test_card_and_licence(ratings):
    card = RATINGS_FILE.with_name("README.md").read_text()
    assert "Hutto, C.J. & Gilbert, E.E. (2014)" in card and f"{len(ratings):,} sentences" in card
    assert f"{sum(map(len, ratings['ratings'])):,} votes" in card
    for domain in DOMAINS:
        votes = sum(map(len, load_ratings(domain=domain)["ratings"]))
        row = " | ".join(map(str, (domain, sum(COUNTS[domain]), votes, *COUNTS[domain])))
        assert f"| {row} |" in card
    licence = LICENSE_FILE.read_text()
    assert "The MIT License (MIT)" in licence and "Copyright (c) 2016 C.J. Hutto" in licence
