import pytest

from hf_align.collators.doubts import are_near_identical, long_limit, repeat_prompt
from hf_align.collators.judged import read_judged
from hf_align.collators.labels import weight_problems
from hf_align.collators.rows import RowProblem


@pytest.mark.parametrize(
    ("texts", "near"),
    [
        (["Yes, sir!", " yes sir"], True),
        (["A good film.", "A bad film.", "a GOOD film"], True),
        (["👍", "👎"], False),  # no letter in either
        (["Good film.", "A good film."], False),
        (["Ça va ?", "ça_va"], True),
        (["की", "का"], False),  # they differ in a vowel sign
        (["❤\ufe0f", "☀\ufe0f"], False),  # both are no letters
    ],
)
def test_texts_that_differ_in_case_punctuation_and_spaces_are_near_identical(texts, near):
    assert are_near_identical(texts) is near


def user(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    ("prompt", "texts", "repeated"),
    [
        ("The sky is", ["The sky is blue.", "The sky is green."], True),
        ("The sky is", ["The sky is blue.", " green."], False),  # short: one may begin so
        ("What colour is the sky?", ["What colour is the sky? Blue.", "Green."], True),
        (None, ["The sky is blue.", "The sky is green."], False),
        (user("Hi there"), ["Hi there!", "Hi there, you."], False),
        (user("What colour is the sky?"), ["Blue.", " What colour is the sky? It is green."], True),
        ([*user("What colour is the sky?"), {"role": "assistant", "content": "It"}], ["It is", "It was"], False),
    ],
)
def test_responses_repeat_a_prompt_in_whole(prompt, texts, repeated):
    assert repeat_prompt(prompt, texts) is repeated


def test_a_long_row_has_ten_times_the_median_but_never_less_than_4000_characters():
    assert long_limit([10, 20, 30]) == (4000, 20)
    assert long_limit([500, 600, 900]) == (6000, 600)
    assert long_limit([]) == (4000, 0)


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}
ANSWER = [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (PAIR | {"chosen": None}, "missing"),
        (PAIR | {"prompt": " "}, "missing"),
        ({"chosen": "Yes", "rejected": "No"}, "missing"),
        (PAIR | {"label": None}, "missing"),
        (PAIR | {"rejected": " \n\u200b\ufeff "}, "empty_response"),
        (PAIR | {"rejected": "a"}, "identical_responses"),
        (PAIR | {"label": 2}, "bad_number"),
        (PAIR | {"votes": [0.3]}, "bad_number"),
        (PAIR | {"chosen": 3}, "malformed"),
        (PAIR | {"prompt": user("p"), "chosen": ANSWER, "rejected": user("b")}, "wrong_roles"),
        (PAIR | {"chosen": ANSWER, "rejected": [*ANSWER, *user("b")]}, "wrong_roles"),
        ({"prompt": "p", "responses": ["a", "b"], "ranking": [0, 2]}, "bad_number"),
        ({"prompt": "p", "responses": ["a", "a"], "ranking": [0, 1]}, "identical_responses"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [1.0, None]}, "missing"),
    ],
)
def test_problems_of_rows_have_kinds(row, kind):
    with pytest.raises(RowProblem) as caught:
        read_judged(row, {})
    assert caught.value.kind == kind


def test_problems_of_margins_and_weights_have_kinds():
    problems = weight_problems({"margin": None, "weight": -1.0})
    assert [(str(problem), problem.kind) for problem in problems] == [
        ("no margin", "missing"),
        ("a negative weight", "bad_number"),
    ]
    assert not weight_problems({"prompt": "p"})
