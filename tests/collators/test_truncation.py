import pytest

from hf_align.collators.truncation import Limits, truncate_pair
from hf_align.errors import UserError

PROMPT = list(range(10))
CHOSEN, REJECTED = [20, 21, 22, 23, 2], [30, 31, 2]


def test_nothing_is_cut_that_fits():
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(15, 10)) == (PROMPT, CHOSEN, REJECTED)
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits()) == (PROMPT, CHOSEN, REJECTED)


@pytest.mark.parametrize(
    ("mode", "prompt"),
    [("keep_end", [6, 7, 8, 9]), ("keep_start", [0, 1, 2, 3])],
)
def test_the_prompt_is_cut_first(mode, prompt):
    limits = Limits(max_length=9, truncation_mode=mode)  # 9 - the longer response's 5
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, limits) == (prompt, CHOSEN, REJECTED)
    limits = Limits(max_prompt_length=4, truncation_mode=mode)
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, limits) == (prompt, CHOSEN, REJECTED)


def test_the_prompt_s_limit_comes_before_the_whole_s():
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(8, 5))[0] == [7, 8, 9]
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(12, 5))[0] == [5, 6, 7, 8, 9]


def test_a_cut_response_loses_its_end_and_no_token_is_put_there():
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(4)) == ([9], [20, 21, 22], REJECTED)


def test_one_token_stays_of_everything():
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(2)) == ([9], [20], [30])
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(2, truncation_mode="keep_start")) == ([0], [20], [30])


def test_bos_stays_when_the_prompt_s_end_is_kept():
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(max_prompt_length=4), start=[0])[0] == [0, 7, 8, 9]
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(max_prompt_length=1), start=[0])[0] == [9]
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(max_prompt_length=4), start=[5])[0] == [6, 7, 8, 9]
    assert truncate_pair(PROMPT, CHOSEN, REJECTED, Limits(7, 6), start=[0])[0] == [0, 9]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((1,), "max_length"), ((None, 0), "max_prompt_length"), ((None, None, "middle"), "truncation_mode")],
)
def test_limits_that_nothing_fits_are_refused(arguments, word):
    with pytest.raises(UserError, match=word):
        Limits(*arguments)
