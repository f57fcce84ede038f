"""Rows of several responses that were ranked, scored or rated: reading, checks, tokenisation, collation."""

import itertools
import math
from typing import Any

import pytest
import torch
from datasets import Dataset

from hf_align.collators import PreferenceCollator, check_preferences, find_bad_rows, tokenize_preferences
from hf_align.collators.rankings import preferences_of, read_ranking, vote_share
from hf_align.errors import UserError

RESPONSES = [" good", " bad", " fine"]


def row(responses: Any = RESPONSES, prompt: Any = "The film was", **judgement: Any) -> dict[str, Any]:
    return {"prompt": prompt, "responses": responses, **judgement}


def error(rows, **kwargs):
    with pytest.raises(UserError) as caught:
        check_preferences(rows, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("judgement", "ranks"),
    [
        ({"ranking": [0, 2, 1]}, [0, 2, 1]),
        ({"ranking": [0.0, None, 1.0]}, [0, -1, 1]),  # Arrow makes floats of integers beside None
        ({"ranking": [-1, 0, -1]}, [-1, 0, -1]),
        ({"ranking": [0, 0, 1]}, [0, 0, 1]),
        ({"ranking": [0, 0, 2]}, [0, 0, 1]),  # a tie of two may take up two ranks
        ({"scores": [3, -1.5, 2]}, [0, 2, 1]),
        ({"scores": [1, 1, 2]}, [1, 1, 0]),
        ({"ratings": [[4, 3], [-1], [0, 1, 2]]}, [0, 2, 1]),
    ],
)
def test_every_judgement_gives_ranks(judgement, ranks):
    assert read_ranking(row(**judgement)).ranks == ranks


def test_preferences_are_shares_of_votes_or_follow_the_ranks():
    draws = [[3, 1, 1], [1, 0], [2]]
    shares = iter(preferences_of([0, 2, 1], draws))
    for first, second in itertools.combinations(draws, 2):  # every pair of one vote each
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second]
        assert vote_share(first, second) == next(shares) == pytest.approx(sum(wins) / len(wins))
    assert preferences_of([0, 1, 1, -1]) == [1, 1, 1, 0.5, 1, 1]
    unknown = preferences_of([-1, 0, -1])
    assert unknown[0] == 0 and math.isnan(unknown[1]) and unknown[2] == 1


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row(ranking=[0, 1]), "another number of responses than values in ranking"),
        (row(ranking=[0, 2, 3]), "a ranking that skips a rank"),
        (row(ranking=[1, 2, 3]), "a ranking that starts at 1 (the best response has rank 0)"),
        (row(ranking=[2.0, None, 3.0]), "a ranking that starts at 2 (the best response has rank 0)"),
        (row(ranking=[0, 1, -2]), "a rank below -1"),
        (row(ranking=[0, 1, 1.5]), "a rank that is no whole number"),
        (row(ranking=[None, -1, None]), "a ranking without a ranked response"),
        (row(ranking=None), "no ranking"),
        (row(scores=[1.0, math.nan, 2.0]), "a score that is NaN or infinite"),
        (row(scores=[1.0, None, None]), "fewer than two responses with scores"),
        (row(ratings=[[1], [2, math.inf], [3]]), "a rating that is NaN or infinite"),
        (row(ratings=[[1], [], None]), "fewer than two responses with ratings"),
        (row([" good"], ranking=[0]), "fewer than two responses"),
        (row([" good", " bad", " good"], ranking=[0, 1, 2]), "two identical responses"),
        (row([" good", "", " bad"], ranking=[0, 1, 2]), "an empty response"),
        (row(prompt="", ranking=[0, 1, 2]), "an empty prompt"),
        (row(None, ranking=[0, 1, 2]), "no responses"),
        (row(ranking=[0, 1, 2], weight=-1.0), "a negative weight"),
    ],
)
def test_a_row_that_can_t_be_used_is_named_with_its_problem(bad, problem):
    values = {"ranking": [0, 1, 2], "scores": [0, 1, 2], "ratings": [[1], [2], [3]]}
    good = row(weight=1.0, **{name: values[name] for name in bad.keys() & values.keys()})
    said = error([good, {"weight": 1.0} | bad], name="data")
    assert said.startswith(f"data: 1 row has {problem}") and "(row 1); fix or drop them" in said


def test_a_data_set_has_one_judgement_and_no_margins():
    assert "has responses and none of ranking, scores, ratings: give exactly one" in error([row()])
    assert "has responses and ranking and scores" in error([row(ranking=[0, 1, 2], scores=[1, 2, 3])])
    assert "margins of such rows are the differences of their scores" in error([row(scores=[1, 2, 3], margin=1.0)])
    assert "no column prompt" in error([{"responses": RESPONSES, "scores": [1, 2, 3]}])
    assert "no column chosen and no column rejected" in error([row(scores=[1, 2, 3])], plain=True)


def test_doubtful_rankings_are_named():
    rows = [
        row(ranking=[0, 1, -1]),
        row(ranking=[0, 1, 2]),
        row([" bad", " good", "a", "b"], ranking=[0, 1, 2, 3]),
        row(ranking=[0, 1, -1]),
        row(scores=[2, 2, 2]) | {"ranking": [0, 0, 0]},
        row([" So!", "so", " no"], "Other", ranking=[0, 1, 2]),
    ]
    del rows[4]["scores"]
    assert find_bad_rows(rows).doubtful == {
        "the opposite preference earlier on": [2, 3],
        "an exact duplicate earlier on": [1, 3],
        "no response better than another": [4],
        "near-identical responses (the same but for case, punctuation and spaces)": [5],
    }


def test_every_response_has_the_ids_of_a_pair(tokenizer):
    def chat(text):
        return [{"role": "assistant", "content": text}]

    prompt = [{"role": "user", "content": "A film?"}]
    for form, start in ((str, "The film was"), (chat, prompt)):
        responses = [form(text) for text in RESPONSES]
        (ranked,) = tokenize_preferences([row(responses, start, ranking=[1, 2, 0])], tokenizer).to_list()
        for number, other in ((0, 1), (2, 1)):
            pair = {"prompt": start, "chosen": responses[number], "rejected": responses[other]}
            (paired,) = tokenize_preferences([pair], tokenizer).to_list()
            assert paired["prompt_ids"] == ranked["prompt_ids"]
            assert paired["response_ids"] == [ranked["response_ids"][number], ranked["response_ids"][other]]
    told = [prompt + chat(text) for text in RESPONSES]  # messages that repeat the prompt, and text behind messages
    assert tokenize_preferences([row(told, prompt, ranking=[1, 2, 0])], tokenizer)[0] == ranked
    assert tokenize_preferences([row(RESPONSES, prompt, ranking=[1, 2, 0])], tokenizer)[0] == ranked


def test_tokenised_rows_keep_what_was_judged(tokenizer, caplog):
    rows = [
        row(scores=[1, None, 3], weight=2.0, helpful=[0.5, 7.0, None], kind=[1, 0, 2]),
        row(scores=[1, 2, 3], weight=1.0, helpful=None, kind=None),
    ]
    with caplog.at_level("WARNING"):
        made = tokenize_preferences(rows, tokenizer, tasks={"helpful": "regression", "kind": 3}, name="data")
    assert [record.getMessage() for record in caplog.records] == [
        "data: responses without a score or rating, left out: 1."
    ]
    assert set(made.column_names) == {"prompt_ids", "response_ids", "ranks", "scores", "weight", "helpful", "kind"}
    first, second = made.to_list()
    assert (first["ranks"], first["scores"], first["kind"], first["weight"]) == ([1, 0], [1, 3], [1, 2], 2)
    assert first["helpful"][0] == 0.5 and math.isnan(first["helpful"][1])
    assert all(map(math.isnan, second["kind"])) and len(second["kind"]) == 3


def test_truncation_keeps_every_response_and_cuts_one_prompt(tokenizer):
    long = row([" a b c d e", " x", " y z"], "word " * 50, ranking=[0, 1, 2])
    (made,) = tokenize_preferences([long], tokenizer, max_length=12).to_list()
    assert len(made["prompt_ids"]) + max(map(len, made["response_ids"])) == 12
    assert len(made["response_ids"]) == 3
    with pytest.raises(UserError, match="1 row has responses that are identical once cut to max_length"):
        tokenize_preferences([row([" a b", " x", " a c"], "word", ranking=[0, 1, 2])], tokenizer, max_length=2)


def test_a_batch_of_rankings_has_preferences_margins_and_task_labels():
    rows = [
        {"prompt_ids": [1], "response_ids": [[2], [3], [4]], "ranks": [0, 2, 1], "scores": [3.0, 0.0, 2.5]},
        {"prompt_ids": [1, 5], "response_ids": [[2], [3]], "ranks": [0, 0], "scores": [1.0, 1.0], "kind": [1, 0]},
    ]
    batch = PreferenceCollator(pad_token_id=0, tasks=("kind",))(rows)
    assert batch["label"].tolist() == [1, 1, 0, 0.5]
    assert batch["margin"].tolist() == [3, 0.5, 2.5, 0]
    assert batch["ranks"].tolist() == [0, 2, 1, 0, 0]
    torch.testing.assert_close(batch["tasks"]["kind"], torch.tensor([math.nan] * 3 + [1.0, 0.0]), equal_nan=True)
    rated = [row | {"ratings": [[1, 2], [1]] if len(row["ranks"]) == 2 else [[4], [0], [3]]} for row in rows]
    batch = PreferenceCollator(pad_token_id=0)(rated)
    assert batch["label"].tolist() == [1, 1, 0, 0.75]
    assert "margin" not in batch and "votes" not in batch
    numbered = [row | {"index": number} for number, row in enumerate(rated, 5)]
    assert PreferenceCollator(pad_token_id=0, draws=True)(numbered)["votes"] == [
        (5, [[4], [0], [3]]),
        (6, [[1, 2], [1]]),
    ]


def test_responses_are_alike_by_prompt_or_by_label():
    rows = [
        {"prompt_ids": [1], "response_ids": [[2], [3], [4]], "kind": [1.0, math.nan, 0.0]},
        {"prompt_ids": [1, 5], "response_ids": [[2], [3]], "kind": [2.0, 1.0]},
        {"prompt_ids": [1], "response_ids": [[8]], "kind": [math.nan]},
    ]
    assert PreferenceCollator(0, contrast="prompt")(rows)["contrast"].tolist() == [0, 0, 0, 1, 1, 0]
    assert PreferenceCollator(0, tasks=("kind",), contrast="kind")(rows)["contrast"].tolist() == [1, -1, 0, 2, 1, -1]


def test_an_arrow_data_set_and_a_list_of_dicts_read_the_same(tokenizer):
    rows = [row(ranking=[0, None, 1]), row([" x", " y"], ranking=[1, 0])]
    assert tokenize_preferences(rows, tokenizer)[:] == tokenize_preferences(Dataset.from_list(rows), tokenizer)[:]
