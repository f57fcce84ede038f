"""Functions as judges."""

import pytest

from hf_align.errors import UserError
from hf_align.feedback import FunctionJudge


def test_words_and_probabilities_are_read_in_both_orders():
    judge = FunctionJudge(lambda prompt, first, second: "first" if len(first) > len(second) else 0.2, "longer")
    [judgement] = judge.compare(["p"], ["long one"], ["short"])
    assert judgement.orders == (1.0, 0.8) and judgement.preference == pytest.approx(0.9)


def test_a_function_that_fails_is_told_with_the_prompt():
    def broken(prompt: str, first: str, second: str) -> float:
        raise ValueError("no key")

    with pytest.raises(UserError, match="judge 'broken' failed on prompt 'Say hello': ValueError: no key"):
        FunctionJudge(broken).compare(["Say hello"], ["a"], ["b"])
    with pytest.raises(UserError, match="it returned 'left'"):
        FunctionJudge(lambda *_: "left").compare(["p"], ["a"], ["b"])
    with pytest.raises(UserError, match=r"judge: 'alone' doesn't take three arguments; write it as f\(prompt, first, "):
        FunctionJudge(lambda prompts, responses, **columns: "first", "alone")
    with pytest.raises(UserError, match="is no function"):
        FunctionJudge("judge.py")  # type: ignore[arg-type]
