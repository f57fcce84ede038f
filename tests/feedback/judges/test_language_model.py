"""A language model as a judge, by the probabilities of A and B."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
import torch
from scipy.special import expit, logit
from tokenizers import normalizers
from torch import nn

from hf_align.data.sources import EMBEDDED, load_rows
from hf_align.errors import UserError
from hf_align.feedback import LanguageModelJudge
from hf_align.feedback.judges.language_model import position_bias
from hf_align.models.reward import RewardModel
from hf_align.rewards import Judgement
from tests.tiny import CHAT, tiny_model, tiny_tokenizer

PROMPTS = ["Name a color.", "Say hello to the whole long list of people in this room."] * 3
FIRSTS = ["Blue.", "Hello!", "Sky.", "a much longer response " * 3, "", "x"]
SECONDS = ["I had fish.", "What?", "Red.", "b", "yes", "y"]
PAIRS = (PROMPTS, FIRSTS, SECONDS)
SHORT = "Q: {prompt}\nA: {first}\nB: {second}\nBest:"
"""A template of few tokens, since each byte is one: for tests to which the question doesn't matter."""


def judge_of(model: Any = None, *, chat: bool = True, **options: Any) -> LanguageModelJudge:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT if chat else None
    return LanguageModelJudge(model or tiny_model(), tokenizer=tokenizer, **options)


def preferences(judgements: Sequence[Judgement]) -> list[float]:
    """Of a judge that always has one."""
    return [cast(float, judgement.preference) for judgement in judgements]


def says_a(strength: float) -> nn.Module:
    """A model whose log-odds of A are higher by `strength`, whatever the question."""
    model = tiny_model()
    head, token = model.lm_head, tiny_tokenizer().convert_tokens_to_ids("A")
    model.lm_head = nn.Linear(32, 260)
    model.lm_head.weight, model.lm_head.bias = head.weight, nn.Parameter(torch.zeros(260))
    model.lm_head.bias.data[token] = strength
    return model


@pytest.mark.parametrize("chat", [True, False])
def test_log_odds_are_those_of_the_answers_tokens_after_the_question(chat):
    judge, model, tokenizer = judge_of(chat=chat), tiny_model(), tiny_tokenizer()
    for odds, prompt, first, second in zip(judge.log_odds(*PAIRS), *PAIRS, strict=True):
        question = judge.question.text(prompt, first, second)
        # Bytes: the space after "Answer:" is a token of its own, the same before A and B.
        plain, turns = f"{question}\n\nAnswer: ", f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        text = turns if chat else plain
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        logits = model(ids).logits[0, -1].detach()
        expected = logits[tokenizer.convert_tokens_to_ids("A")] - logits[tokenizer.convert_tokens_to_ids("B")]
        assert odds == pytest.approx(float(expected), abs=1e-4)


def test_opinions_are_those_of_both_orders_and_do_not_depend_on_the_batch():
    judge = judge_of(prompt=SHORT)
    judgements = judge.compare(*PAIRS)
    forward, backward = judge.log_odds(*PAIRS), judge.log_odds(PROMPTS, SECONDS, FIRSTS)
    for judgement, first, second, *pair in zip(judgements, forward, backward, *PAIRS, strict=True):
        assert judgement.orders == pytest.approx((expit(first), expit(-second)), abs=1e-6)
        [alone] = judge.compare(*([each] for each in pair))
        assert logit(alone.orders) == pytest.approx(logit(judgement.orders), abs=1e-3)
    swapped = preferences(judge.compare(PROMPTS, SECONDS, FIRSTS))
    assert [1 - each for each in swapped] == pytest.approx(preferences(judgements))
    assert judge.compare(*PAIRS) == judgements and judge.compare([], [], []) == []


@pytest.mark.parametrize("strength", [20.0, 1000.0])
def test_a_judge_that_always_says_a_gives_ties_only(strength):
    judgements = judge_of(says_a(strength), prompt=SHORT).compare(*PAIRS)
    assert all(judgement.flipped and judgement.preference == 0.5 for judgement in judgements)


def test_calibration_removes_the_position_effect_and_flips():
    judge, fair = judge_of(says_a(20.0), prompt=SHORT), judge_of(prompt=SHORT)
    measured = judge.calibrate(*PAIRS)
    assert measured.effect == pytest.approx(0.5, abs=0.01) and measured.flips == 1.0 and measured.pairs == len(PROMPTS)
    assert abs(measured.effect_after) < 1e-6 and cast(float, measured.flips_after) < 1.0
    assert measured.log_odds == pytest.approx(20 + fair.calibrate(*PAIRS).log_odds, abs=1e-3)
    corrected = judge.compare(*PAIRS)
    for one, other in zip(corrected, fair.compare(*PAIRS), strict=True):
        assert one.orders == pytest.approx(other.orders, abs=1e-4)
    assert judge_of(says_a(20.0), prompt=SHORT, bias=judge.bias).compare(*PAIRS) == corrected


def test_null_pairs_calibrate_too():
    judge = judge_of(says_a(20.0), prompt=SHORT)
    measured = judge.calibrate(PROMPTS, FIRSTS)
    assert measured.flips is None and measured.log_odds == pytest.approx(20, abs=2)
    [judgement] = judge.compare(["p"], ["same"], ["same"])
    assert judgement.preference == 0.5


def test_the_bias_makes_the_mean_probability_one_half():
    assert position_bias([1.0, 3.0]) == pytest.approx(2.0) and position_bias([0.7]) == 0.7
    assert position_bias([5.0, -1.0, 0.0]) == pytest.approx(1.0 + position_bias([4.0, -2.0, -1.0]))


def test_a_principle_is_asked_about_by_the_same_model():
    judge = judge_of(bias=0.5)
    kind = judge.with_principle("Be kind.", "kind")
    assert kind.model is judge.model and (kind.name, kind.bias, judge.bias) == ("kind", 0.0, 0.5)
    direct = judge_of(principle="Be kind.")
    assert kind.log_odds(*PAIRS) == pytest.approx(direct.log_odds(*PAIRS))
    assert judge.question.principle is None
    assert kind.identity() == direct.identity() != judge.identity()


def test_a_template_of_ones_own_is_asked_as_it_is():
    template = "{prompt}\n1: {first}\n2: {second}\nThe better one is\n"
    judge, model, tokenizer = judge_of(chat=False, prompt=template), tiny_model(), tiny_tokenizer()
    [odds] = judge.log_odds(["p"], ["a"], ["b"])
    ids = tokenizer("p\n1: a\n2: b\nThe better one is\n", return_tensors="pt")["input_ids"]
    logits = model(ids).logits[0, -1].detach()
    expected = logits[tokenizer.convert_tokens_to_ids("A")] - logits[tokenizer.convert_tokens_to_ids("B")]
    assert odds == pytest.approx(float(expected), abs=1e-4)


def test_what_can_not_be_judged_is_refused_in_a_sentence(tiny_model_dir):
    short = judge_of(tiny_model(max_position_embeddings=300))
    with pytest.raises(UserError, match=r"prompt 'x+' takes \d+ tokens, and the model has 300 positions"):
        short.compare(["x" * 300], ["a"], ["b"])
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("B", "A")
    with pytest.raises(UserError, match="answers A and B"):
        LanguageModelJudge(tiny_model(), tokenizer=tokenizer)
    with pytest.raises(UserError, match="is a reward model"):
        LanguageModelJudge(RewardModel.from_backbone(tiny_model_dir))
    with pytest.raises(UserError, match="give its tokenizer"):
        LanguageModelJudge(tiny_model())
    with pytest.raises(UserError, match="is no model"):
        LanguageModelJudge(3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="bias is nan"):
        judge_of(bias=float("nan"))
    with pytest.raises(UserError, match="at least one pair"):
        judge_of().calibrate([], [])
    assert LanguageModelJudge(tiny_model_dir).name == tiny_model_dir


@pytest.mark.slow
def test_the_real_model_has_no_position_effect_after_calibration(base_dir):
    train, test = (load_rows(EMBEDDED, role, 0) for role in ("train", "eval"))
    columns = [[rows[:60][name] for name in ("prompt", "chosen", "rejected")] for rows in (train, test)]
    judge = LanguageModelJudge(base_dir)
    measured = judge.calibrate(*columns[0])
    assert abs(measured.effect_after) < 1e-6 and cast(float, measured.flips_after) < cast(float, measured.flips)
    judgements = judge.compare(*columns[1])
    assert all(judgement.preference is not None for judgement in judgements)
    orders = [cast(tuple[float, float], judgement.orders) for judgement in judgements]
    effects = [(first - second) / 2 for first, second in orders]
    assert abs(sum(effects) / len(effects)) <= 0.01
