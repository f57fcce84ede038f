"""Verdicts in texts and log-probs."""

from __future__ import annotations

import math

import pytest

from hf_align.feedback.judges.endpoint.completion import Completion, Token, read_completion
from hf_align.feedback.judges.endpoint.verdict import letter_probability, opinion_of, read_verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", 1.0),
        (" b", None),
        ("B.", 0.0),
        ("**A**", 1.0),
        ("(B)", 0.0),
        ("Response B", 0.0),
        ("[[A]]", 1.0),
        ("Verdict: A", 1.0),
        ("The better response is B.", 0.0),
        ("**Answer:** *A*", 1.0),
        ("The answer is a tie.", 0.5),
        ("Tie", 0.5),
        ("A\n\nIt is clearer.", 1.0),
        ("[[A]] at first sight. But no: [[B]]", 0.0),
        ("Verdict: A. On second thought, the answer is B.", 0.0),
        ("<think>The answer is A.</think>\n\nB", 0.0),
        ("<think>The answer is A, or is it", None),
        ("Response A:\n- short\n\nResponse B:\n- long", None),
        ("A good question, and a better answer than most.", None),
        ("I can't judge that.", None),
        ("A, B", None),
        ("", None),
    ],
)
def test_the_last_verdict_of_a_text_counts(text: str, verdict: float | None):
    assert read_verdict(text) == verdict


def test_only_the_beginning_of_a_cut_answer_counts():
    assert read_verdict("A", cut=True) == 1.0 and read_verdict("[[B]] since", cut=True) == 0.0
    assert read_verdict("I shall say [[A]] or [[B]], and", cut=True) is None


def tokens_of(*places: dict[str, float]) -> tuple[Token, ...]:
    """Tokens from the probabilities told at each place, of which the first was written."""
    tops = [tuple((text, math.log(p)) for text, p in place.items()) for place in places]
    return tuple(Token(*top[0], top) for top in tops)


def test_a_letters_probability_sums_its_tokens_at_the_last_place_that_has_it():
    reasons, verdict = {"A": 0.9, "B": 0.1}, {"A": 0.5, " A": 0.1, "B": 0.2, "The": 0.2}
    tokens = tokens_of(reasons, {" good": 1.0}, verdict)
    assert letter_probability(tokens, "A") == pytest.approx(0.6 / 0.8)
    assert letter_probability(tokens, "B") is None  # no token says it
    assert opinion_of(Completion("A good A", tokens=tokens)) == (None, False)
    said, by_logprobs = opinion_of(Completion("A", tokens=tokens))
    assert said == pytest.approx(0.75) and by_logprobs
    assert opinion_of(Completion("A", tokens=None)) == (1.0, False)
    assert opinion_of(Completion("A", tokens=(Token("A", -0.1, ()),))) == (1.0, False)


def test_a_letter_that_is_not_told_gets_the_most_that_it_can_have():
    assert letter_probability(tokens_of({"A": 0.6, "The": 0.3}), "A") == pytest.approx(0.6 / 0.7)  # .1 is left
    assert letter_probability(tokens_of({"A": 0.6, "The": 0.02}), "A") == pytest.approx(0.6 / 0.62)  # no more than The
    assert letter_probability(tokens_of({"B": 1.0}), "B") == 0.0


def test_log_probs_that_are_none_are_left_out():
    def output(logprob: object) -> dict[str, object]:
        top = [{"token": "A", "logprob": logprob}]
        content = [{"token": "A", "logprob": -0.5, "top_logprobs": top}]
        return {"choices": [{"message": {"content": "A"}, "logprobs": {"content": content}}]}

    assert read_completion(output(-0.5), str).tokens == (Token("A", -0.5, (("A", -0.5),)),)
    for wrong in ("-0.5", math.nan, 3.0, None):
        assert read_completion(output(wrong), str).tokens is None
    whole = Completion("A", "stop", tokens_of({"A": 0.6, "B": 0.3}), 3, None)
    assert Completion.from_json(whole.to_json()) == whole
