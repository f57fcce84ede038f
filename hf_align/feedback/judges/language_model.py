"""A local language model as a judge: by the probabilities of the answers A and B, without writing or parsing text.

compare                 judges pairs, each in both orders (`judge_orders`)
    log_odds            of the answer A, for questions in one order
        _encode         the question and both answers as tokens, one prompt with two branches
        outputs_of      the model, in batches of similar length
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit
from torch import nn
from transformers import PreTrainedTokenizerBase

from hf_align.collators.checks import read_rows
from hf_align.collators.collate import find_pad_token_id
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import Pair, RowProblem, Side, text_of
from hf_align.errors import UserError
from hf_align.feedback.judges.question import ANSWERS, Question
from hf_align.layout.branches import Branches
from hf_align.models.adapters import evaluation_mode
from hf_align.models.decoders import check_decoder, positions_of
from hf_align.models.digest import weights_digest
from hf_align.models.kinds import check_is_policy
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.policy import PolicyModel
from hf_align.models.quantized import Quantization
from hf_align.models.scoring import Encoded, outputs_of
from hf_align.models.sources import check_source, load_tokenizer
from hf_align.models.vocabulary import check_token_ids
from hf_align.rewards.judges import Judgement, combine_orders, judge_orders
from hf_align.version import versions

CUE = "\n\nAnswer:"
"""What a default question ends with for a model without a chat template, which continues text."""


def check_bias(bias: float) -> float:
    """A bias as a number; refuses one that isn't finite.

    Raises:
        UserError: It is no finite number.
    """
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not np.isfinite(bias):
        raise UserError(f"bias is {bias!r}; give log-odds, a finite number, as calibrate measures them")
    return float(bias)


@dataclass(frozen=True)
class PositionBias:
    """What a judge gives the response shown first, whatever it says.

    Attributes:
        log_odds: The bias: subtracted from the log-odds of every answer, it makes the position effect 0 on these pairs.
        pairs: Pairs that it was measured on.
        effect: Position effect before: the mean probability given to the response shown first, less 1/2.
        effect_after: The same after the correction.
        flips: Share of pairs whose choice changed with the order before; None for null pairs, which have one order.
        flips_after: The same after the correction.
    """

    log_odds: float
    pairs: int
    effect: float
    effect_after: float
    flips: float | None = None
    flips_after: float | None = None


class LanguageModelJudge:
    """A causal language model as a judge of pairs.

    It is asked which of two responses is better, and its opinion is the probability of the answer A against that of the
    answer B, sum of the log-probs of their tokens after the question: there is a verdict on every pair. Each pair is
    asked about in both orders; where the choice changes with the order, it is a tie. Equal inputs give equal opinions;
    other pairs in the same call change them by rounding only (log-odds by less than 1e-3 in float32).

    Args:
        model: Hub id or folder of a language model, adapter or GGUF file, moved to the GPU if there is one; or a loaded
            model, which stays where it is. Its chat template is used if it has one.
        tokenizer: The model's tokenizer. Default: the one stored with it.
        prompt: Template of the question; see `Question`. Default: which response is better, or follows the principle
            better. A default question ends with "Answer:" where there is no chat template.
        principle: What to judge by, for the field {principle}.
        name: Name in reports and stores. Default: the model's folder or Hub id.
        quantization: As in `load_policy`.
        bias: Position bias in log-odds to subtract, as `calibrate` measures it.

    Attributes:
        bias: The position bias in effect.

    Raises:
        UserError: It can't be loaded or is no language model, the template lacks a field, or the tokenizer can't tell
            the answers A and B apart.

    Example:
        >>> from hf_align.feedback import LanguageModelJudge
        >>> judge = LanguageModelJudge("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> [judgement] = judge.compare(["Name a color."], ["Blue."], ["I had fish for dinner."])
        >>> 0 <= judgement.preference <= 1
        True
        >>> bias = judge.calibrate(["Name a color.", "Say hello."], ["Blue.", "Hello!"], ["Red.", "Good morning."])
        >>> abs(bias.effect_after) < 1e-6
        True
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        prompt: str | None = None,
        principle: str | None = None,
        name: str | None = None,
        quantization: Quantization = None,
        bias: float = 0.0,
    ) -> None:
        self.question = Question(prompt, principle)
        self.bias = check_bias(bias)
        module, source = _load(model, quantization)
        if tokenizer is None and not source:
            raise UserError(f"judge: the {type(module).__name__} doesn't say where it is from; give its tokenizer")
        self.name = name or source or type(module).__name__
        self.model = PolicyModel(module)
        self.encoder = PairEncoder(tokenizer or load_tokenizer(source))
        self._check_answers()

    def with_principle(
        self, principle: str, name: str | None = None, *, prompt: str | None = None
    ) -> LanguageModelJudge:
        """The same loaded model as a judge by a principle, without position bias: that belongs to the question.

        Args:
            principle: What to judge by.
            name: Its name. Default: this judge's.
            prompt: Template of the question with the field {principle}. Default: as in the constructor.

        Raises:
            UserError: As the constructor.
        """
        other = copy.copy(self)
        other.question, other.bias, other.name = Question(prompt, principle), 0.0, name or self.name
        other._check_answers()
        return other

    def compare(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[Judgement]:
        """Judge `[N]` pairs of responses to `[N]` prompts, texts or messages.

        Raises:
            UserError: A question is longer than the model's positions (nothing is cut), its chat template refuses one,
                or its answers aren't finite; before anything is computed, if the tokens tell.
        """

        def ask(prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> list[float]:
            return expit(self.log_odds(prompts, firsts, seconds) - self.bias).tolist()

        return judge_orders(ask, prompts, firsts, seconds)

    def log_odds(self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side]) -> NDArray[np.float64]:
        """`[N]` log-odds of A, the first response, against B, asked in this order only and without `bias`.

        Raises:
            UserError: As `compare`.
        """
        pairs = list(zip(prompts, firsts, seconds, strict=True))
        encoded = read_rows(pairs, lambda pair: self._encode(self.question.text(*pair)), self.name)
        positions = positions_of(self._config)
        for (prompt, *_), answered in zip(pairs, encoded, strict=True):
            length = max(len(question) + len(answer) for question, answer in answered)
            if positions is not None and length > positions:
                shown = " ".join(text_of(prompt).split())[:60]
                raise UserError(
                    f"judge {self.name!r}: the question about prompt {shown!r} takes {length} tokens, and the model "
                    f"has {positions} positions; shorten or leave out such pairs"
                )
        flat = [each for answered in encoded for each in answered]
        check_token_ids(self.model.model, self.encoder.tokenizer, (part for each in flat for part in each), self.name)

        def sums_of(branches: Branches) -> list[float]:
            logps = self.model(branches).double().cpu()
            return [float(part.sum()) for part in logps.split(branches.lengths().tolist())]

        with evaluation_mode(self.model):
            sums = np.asarray(
                outputs_of(self.model, flat, find_pad_token_id(self.encoder.tokenizer), sums_of), dtype=float
            )
        odds = sums[0::2] - sums[1::2]
        if not np.isfinite(odds).all():
            raise UserError(f"judge {self.name!r} gives log-probs that aren't finite; load it in another dtype")
        return odds

    def calibrate(
        self, prompts: Sequence[Side], firsts: Sequence[Side], seconds: Sequence[Side] | None = None
    ) -> PositionBias:
        """Measure the position bias on pairs and subtract it from now on (as Zhao et al., 2021, do with neutral input).

        The bias is the number that, subtracted from the log-odds of all answers, makes the mean probability of the
        response shown first 1/2: fewer choices then change with the order. It doesn't see which response people prefer.

        Args:
            prompts: `[N]` prompts, texts or messages.
            firsts: `[N]` responses.
            seconds: `[N]` other responses; each pair is asked about in both orders. Default: the same as `firsts`,
                null pairs.

        Raises:
            UserError: There are no pairs, or as `compare`.
        """
        if not prompts:
            raise UserError("calibrate needs at least one pair; give some dozens, like those to judge")
        if seconds is None:
            odds = self.log_odds(prompts, firsts, firsts)
        else:
            odds = self.log_odds([*prompts, *prompts], [*firsts, *seconds], [*seconds, *firsts])
        self.bias = bias = position_bias(odds)
        return PositionBias(
            bias,
            len(prompts),
            *(float(expit(each).mean() - 0.5) for each in (odds, odds - bias)),
            *((None, None) if seconds is None else (_flips(each) for each in (odds, odds - bias))),
        )

    def identity(self) -> dict[str, Any]:
        """What determines opinions besides the texts: weights, question, position bias, versions, device."""
        return {
            "weights": weights_digest(self.model.model),
            "template": self.encoder.tokenizer.chat_template,
            "question": self.question.template,
            "principle": self.question.principle,
            "bias": self.bias,
            "versions": versions(),
            "device": str(self.model.device),
        }

    @property
    def _config(self) -> Any:
        return self.model.model.config

    def _encode(self, question: str) -> list[Encoded]:
        """The question's tokens with those of each answer, after the chat template or as text that continues."""
        if self.encoder.tokenizer.chat_template:
            prompt: Any = [{"role": "user", "content": question}]
            answers: list[Any] = [[{"role": "assistant", "content": each}] for each in ANSWERS]
        else:  # a space belongs to the word after it, as in most vocabularies
            question += CUE if self.question.is_default else ""
            prompt = question.rstrip()
            answers = [(question[len(prompt) :] or " ") + answer for answer in ANSWERS]
        pair = Pair(prompt, *answers)
        texts = self.encoder.texts(prompt, answers, {})
        ids, ended = self.encoder.split(pair, texts, self.encoder.encode(texts.all))
        conversational = isinstance(prompt, list)
        return [(ids, self.encoder.unended(answer, conversational=conversational)) for answer in ended]

    def _check_answers(self) -> None:
        """Refuse a tokenizer for which the answers are the same tokens, or one is the beginning of the other."""
        try:
            first, second = (answer for _, answer in self._encode(self.question.text("prompt", "one", "two")))
        except RowProblem as problem:
            raise UserError(f"judge {self.name!r}: its tokenizer can't write the answers A and B ({problem})") from None
        if _begins(first, second) or _begins(second, first):
            raise UserError(
                f"judge {self.name!r}: its tokenizer can't tell the answers A and B apart; give the model's tokenizer, "
                "or another model"
            )


def position_bias(log_odds: ArrayLike) -> float:
    """The c for which the mean of sigmoid(log_odds - c) is 1/2."""
    odds = np.asarray(log_odds, dtype=float)
    low, high = float(odds.min()), float(odds.max())
    if low == high:
        return low
    return float(cast(float, brentq(lambda c: float(expit(odds - c).mean()) - 0.5, low, high)))


def _flips(log_odds: NDArray[np.float64]) -> float:
    """Share of pairs whose choice changes with the order; `[2N]` log-odds of A in one order, then the other."""
    forward, backward = np.split(expit(log_odds), 2)
    pairs = zip(forward.tolist(), backward.tolist(), strict=True)
    return float(np.mean([combine_orders(first, 1 - second).flipped for first, second in pairs]))


def _begins(whole: Sequence[int], part: Sequence[int]) -> bool:
    return list(whole[: len(part)]) == list(part)


def _load(model: Any, quantization: Quantization) -> tuple[nn.Module, str]:
    """A language model, and where it is from."""
    if isinstance(model, nn.Module):
        check_is_policy(model, "judge")
        check_decoder(model, "judge")
        return model, str(getattr(getattr(model, "config", None), "name_or_path", ""))
    if not isinstance(model, str | os.PathLike):
        raise UserError(f"judge: {model!r} is no model; give a Hub id, a folder or a loaded language model")
    source = os.fspath(model)
    check_source(source)
    check_is_policy(source, "judge", ask_hub=True)
    return to_gpu(load_policy(source, quantization=quantization), quantization), source
