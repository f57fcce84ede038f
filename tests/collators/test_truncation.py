import pytest

from hf_align.collators.truncation import Limits, truncate
from hf_align.errors import UserError

PROMPT = list(range(10))
RESPONSES = [[20, 21, 22, 23, 2], [30, 31, 2]]


def test_nothing_is_cut_that_fits():
    assert truncate(PROMPT, RESPONSES, Limits(15, 10)) == (PROMPT, RESPONSES)
    assert truncate(PROMPT, RESPONSES, Limits()) == (PROMPT, RESPONSES)


@pytest.mark.parametrize(
    ("mode", "prompt"),
    [("keep_end", [6, 7, 8, 9]), ("keep_start", [0, 1, 2, 3])],
)
def test_the_prompt_is_cut_first(mode, prompt):
    limits = Limits(max_length=9, truncation_mode=mode)  # 9 - the longer response's 5
    assert truncate(PROMPT, RESPONSES, limits) == (prompt, RESPONSES)
    limits = Limits(max_prompt_length=4, truncation_mode=mode)
    assert truncate(PROMPT, RESPONSES, limits) == (prompt, RESPONSES)


def test_the_prompt_s_limit_comes_before_the_whole_s():
    assert truncate(PROMPT, RESPONSES, Limits(8, 5))[0] == [7, 8, 9]
    assert truncate(PROMPT, RESPONSES, Limits(12, 5))[0] == [5, 6, 7, 8, 9]


def test_a_cut_response_loses_its_end_and_no_token_is_put_there():
    assert truncate(PROMPT, RESPONSES, Limits(4)) == ([9], [[20, 21, 22], RESPONSES[1]])


def test_the_longest_of_any_number_of_responses_decides():
    responses = [[20, 2], [30, 31, 2], [40, 41, 42, 43, 44, 2]]
    assert truncate(PROMPT, responses, Limits(8)) == ([8, 9], responses)
    assert truncate(PROMPT, responses, Limits(4)) == ([9], [[20, 2], [30, 31, 2], [40, 41, 42]])
    assert truncate(PROMPT, responses[:1], Limits(8)) == ([4, 5, 6, 7, 8, 9], responses[:1])


def test_one_token_stays_of_everything():
    assert truncate(PROMPT, RESPONSES, Limits(2)) == ([9], [[20], [30]])
    assert truncate(PROMPT, RESPONSES, Limits(2, truncation_mode="keep_start")) == ([0], [[20], [30]])


def test_bos_stays_when_the_prompt_s_end_is_kept():
    assert truncate(PROMPT, RESPONSES, Limits(max_prompt_length=4), start=[0])[0] == [0, 7, 8, 9]
    assert truncate(PROMPT, RESPONSES, Limits(max_prompt_length=1), start=[0])[0] == [9]
    assert truncate(PROMPT, RESPONSES, Limits(max_prompt_length=4), start=[5])[0] == [6, 7, 8, 9]
    assert truncate(PROMPT, RESPONSES, Limits(7, 6), start=[0])[0] == [0, 9]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((1,), "max_length"), ((None, 0), "max_prompt_length"), ((None, None, "middle"), "truncation_mode")],
)
def test_limits_that_nothing_fits_are_refused(arguments, word):
    with pytest.raises(UserError, match=word):
        Limits(*arguments)
