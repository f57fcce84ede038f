"""Rows of every layout in the form that the report measures."""

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from hf_align.data.comparison_rows import read_comparisons
from hf_align.data.comparisons import Comparisons, vote_shares
from hf_align.errors import UserError
from hf_align.evaluation.policy_inputs import read_asked


def _pairs(data: Comparisons) -> list[tuple[Any, Any, float, int]]:
    """Both texts, the label and the direction of every pair."""
    texts = [data.texts[number].text for number in data.text_of]
    columns = zip(data.first, data.second, data.label, data.better, strict=True)
    return [(texts[a], texts[b], float(label), int(better)) for a, b, label, better in columns]


def test_pairs_are_sure_unless_a_column_says_how_many_preferred_which() -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert _pairs(read_comparisons([row])) == [("a", "b", 1.0, 1)]
    assert _pairs(read_comparisons([row | {"label": 0.25}])) == [("a", "b", 0.25, -1)]
    assert _pairs(read_comparisons([row | {"preference": 0.5}])) == [("a", "b", 0.5, 0)]
    data = read_comparisons([row | {"votes": [1.0, 1.0, 0.5, 0.0]}])
    assert _pairs(data) == [("a", "b", 0.625, 1)] and data.votes.tolist() == [4]
    rated = read_comparisons([row | {"chosen_ratings": [3.0, 1.0], "rejected_ratings": [1.0, 0.0, 2.0]}])
    # 3 is above all three; 1 is above 0, equal to 1 and below 2: (3 + 1.5) of 6.
    assert _pairs(rated) == [("a", "b", 0.75, 1)] and rated.votes.tolist() == [2]
    assert rated.human.tolist() == [2.0, 1.0] and rated.human_kind == "ratings"


def test_vote_shares_equal_a_count_of_all_vote_pairs() -> None:
    rng = np.random.default_rng(0)
    votes = [rng.integers(-4, 5, size).tolist() for size in (15, 3, 40, 1)]
    first, second = np.triu_indices(4, k=1)
    counted = [
        np.mean([(a > b) + (a == b) / 2 for a in votes[i] for b in votes[j]])
        for i, j in zip(first, second, strict=True)
    ]
    assert vote_shares(votes, first, second) == pytest.approx(counted, abs=1e-12)


def test_rankings_give_all_pairs_but_those_below_all_ranked() -> None:
    rows = [{"prompt": "p", "responses": ["a", "b", "c", "d"], "ranking": [1, 0, -1, None]}]
    data = read_comparisons(rows)
    assert _pairs(data) == [
        *[("a", "b", 0.0, -1), ("a", "c", 1.0, 1), ("a", "d", 1.0, 1), ("b", "c", 1.0, 1), ("b", "d", 1.0, 1)]
    ]
    assert data.human.tolist() == [-1.0, 0.0, -2.0, -2.0] and data.human_kind == "ranks"
    scored = read_comparisons([{"prompt": "p", "responses": ["a", "b", "c"], "scores": [0.5, None, 0.2]}])
    assert _pairs(scored) == [("a", "c", 1.0, 1)]
    votes = [[1.0, 2.0], [2.0, 2.0], [0.0, 1.0]]
    rated = read_comparisons([{"prompt": "p", "responses": ["a", "b", "c"], "ratings": votes}], min_gap=0.5)
    assert _pairs(rated) == [("a", "b", 0.25, 0), ("a", "c", 0.875, 1), ("b", "c", 1.0, 1)]


def test_a_gap_counts_wherever_people_gave_scores_and_is_refused_elsewhere() -> None:
    ratings = [([3.0, 3.0], [2.0, 2.0]), ([3.0, 3.0], [2.9, 2.9])]
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_ratings": c, "rejected_ratings": r} for c, r in ratings
    ]
    assert read_comparisons(rows).better.tolist() == [1, 1]
    assert read_comparisons(rows, min_gap=0.5).better.tolist() == [1, 0]
    ranked = {"prompt": "p", "responses": ["a", "b"], "ranking": [0, 1]}
    for row in ({"prompt": "p", "chosen": "a", "rejected": "b"}, ranked):
        with pytest.raises(UserError, match=r"min_gap is 0.5, a difference of people's scores .* and data has none"):
            read_comparisons([row], min_gap=0.5)


def test_two_judgements_of_one_row_are_refused() -> None:
    with pytest.raises(UserError, match="data has responses and ranking and scores, which may contradict each other"):
        read_comparisons([{"prompt": "p", "responses": ["a", "b"], "ranking": [0, 1], "scores": [1.0, 2.0]}])
    pair = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_ratings": [2, 3], "rejected_ratings": [1, 0]}
    assert read_comparisons([pair]).label.tolist() == [1.0]
    with pytest.raises(UserError, match="data has rejected and label and chosen_ratings and rejected_ratings, which"):
        read_comparisons([pair | {"label": 0.2}])
    rated = {"prompt": "p", "response": "a", "ratings": [1, 2]}
    assert read_comparisons([rated | {"rating": 1.5}, rated | {"response": "b"}]).human.tolist() == [1.5, 1.5]
    with pytest.raises(UserError, match="a rating that isn't the mean of its ratings"):
        read_comparisons([rated | {"rating": 2.0}])


def test_rated_responses_are_compared_within_a_prompt_or_on_request_within_a_subset() -> None:
    columns = {"prompt": "p p q r".split(), "response": "a b c d".split(), "rating": [1.0, 2.0, 3.0, 0.0]}
    rows = Dataset.from_dict(columns | {"domain": ["x", "x", "x", "y"]})
    assert _pairs(read_comparisons(rows)) == [("a", "b", 0.0, -1)]
    across = read_comparisons(rows, across_prompts=True)
    assert _pairs(across) == [("a", "b", 0.0, -1), ("a", "c", 0.0, -1), ("b", "c", 0.0, -1)]
    assert (across.unit, across.subsets) == ("texts", ["x", "y"])


def test_every_chosen_of_a_list_beats_every_rejected_one() -> None:
    row = {"prompt": "p", "chosen": ["a"], "rejected": ["b", "c"]}
    assert _pairs(read_comparisons([row])) == [("a", "b", 1.0, 1), ("a", "c", 1.0, 1)]
    assert read_comparisons([row]).styles == ()
    styles = {"prompt": "p", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "c"]}
    data = read_comparisons([styles])
    assert data.styles == ("concise", "detailed", "detailed markdown")
    assert data.style_of.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(data.first) == 8 and data.skipped == {"pairs of one text": 1}


def test_a_sample_of_pairs_is_taken_where_there_are_too_many() -> None:
    rows = [{"prompt": "p", "response": str(n), "rating": float(n)} for n in range(40)]
    data = read_comparisons(rows, max_pairs=100)
    assert (len(data.first), data.candidates) == (100, 780)
    assert len(set(zip(data.first.tolist(), data.second.tolist(), strict=True))) == 100
    assert (data.better == np.sign(data.human[data.first] - data.human[data.second])).all()
    assert len(read_comparisons(rows).first) == 780


def test_texts_are_drawn_where_few_prompts_have_many_texts() -> None:
    many = [{"prompt": p, "response": f"{p}{n}", "rating": float(n)} for p in "pq" for n in range(5)]
    assert read_comparisons(many).unit == "texts"
    assert read_comparisons(many[:2] + many[5:7]).unit == "prompts"


def test_equal_texts_are_one_text_only_after_the_same_prompt() -> None:
    rows = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in ("p", "q", "p")]
    data = read_comparisons(rows)
    assert data.text_of.tolist() == [0, 1, 2, 3, 0, 1] and data.prompt_of.tolist() == [0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "text": "a"}, "data has the columns prompt, text; the report reads"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "label": 1.5}, "label that is no number between 0 and 1"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "votes": [2]}, "vote that is not 0, 0.5 or 1"),
        ({"prompt": "p", "responses": ["a", "b"]}, "no ranking"),
        (
            {"prompt": "p", "responses": ["a", "b"], "ranking": [0]},
            "another number of responses than values in ranking",
        ),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [0.5, 0]}, "rank that is no whole number"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [-1, -1]}, "ranking without a ranked response"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [float("nan"), 0.0]}, "score that is NaN"),
        ({"prompt": "p", "response": "a", "rating": None}, "no rating that is a number"),
        ({"prompt": "p", "response": "a", "ratings": []}, "ratings that are no list of numbers"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_comparisons([row])


def test_rows_of_other_layouts_are_converted_however_near_their_ratings_are(caplog: pytest.LogCaptureFixture) -> None:
    attributes = {"correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1}
    rows = [{"prompt": "p", "response": text, "helpfulness": n, **attributes} for text, n in (("a", 1.2), ("b", 1.0))]
    data = read_comparisons(rows)
    assert [text.text for text in data.texts] == ["a", "b"] and data.better.tolist() == [1.0]
    assert "data: recognised helpsteer" in caplog.text
    side = {"role": "assistant", "content": "x"}
    assert len(read_comparisons([{"prompt": "p", "chosen": side, "rejected": {**side, "content": "y"}}]).first) == 1


def test_only_rated_responses_cross_prompts() -> None:
    with pytest.raises(UserError, match="across_prompts compares rated responses"):
        read_comparisons([{"prompt": "p", "chosen": "a", "rejected": "b"}], across_prompts=True)


def test_no_part_of_the_data_takes_the_place_of_all_rows() -> None:
    rows = [{"prompt": "p", "response": f"r{n}", "rating": float(n), "subset": "all"} for n in range(3)]
    assert read_comparisons(rows).subsets == ["all"]
    with pytest.raises(UserError, match="Row 0 has the subset 'all'"):
        read_comparisons([*rows, rows[0] | {"subset": "film"}])
    domains = Dataset.from_list([{"prompt": "p", "domain": name} for name in ("film", "all")])
    with pytest.raises(UserError, match="Row 1 has the domain 'all'"):
        read_asked(domains)


def test_rows_that_augmentation_made_are_refused() -> None:
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b", "source": "augmented:transitivity"}]
    with pytest.raises(UserError, match="data: 1 row has a source that says augmented"):
        read_comparisons(rows)
