"""One interface for all kinds of rewards, with errors that name the reward and the sample."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_align.collators.rows import content_of
from hf_align.errors import UserError
from hf_align.models.kinds import no_head
from hf_align.models.reward import load_reward_model
from hf_align.models.reward_adapter import shares_base
from hf_align.models.sources import is_ensemble
from hf_align.numbers import LARGEST, number_problem
from hf_align.rewards.adapter import AdapterReward
from hf_align.rewards.ensemble import load_ensemble
from hf_align.rewards.functions import ON_REQUEST, RewardFunction, Samples, shortened
from hf_align.rewards.models import MODELS, ModelScorer, move

NO_SCORE = f"make it return a finite number up to {LARGEST:g}, such as 0 where it can't tell"


Scorer = Callable[[Samples], Any]


class NonFiniteReward(UserError):
    """A reward gave NaN, or a number that is too large for float32.

    Example:
        >>> from hf_align.rewards import NonFiniteReward, as_reward
        >>> reward = as_reward(lambda prompts, responses: [float("nan")])
        >>> try:
        ...     reward(["Say hello."], ["Hello!"])
        ... except NonFiniteReward as error:
        ...     print(type(error).__name__)
        NonFiniteReward
    """


@dataclass
class Part:
    """One of the rewards that make up a `Reward`."""

    name: str
    weight: float
    scorer: Scorer
    source: Any


class Reward:
    """A weighted sum of rewards, made by `as_reward`.

    Attributes:
        parts: Unweighted scores `[R]` of the last call by name, for logging.
        details: Of an ensemble among them "std" and perhaps "penalty" `[R]`, as in `ModelScorer`; of several with
            their names, as in "NAME/std".

    Example:
        >>> from hf_align.rewards import as_reward
        >>> def length(prompts, responses):
        ...     return [float(len(response)) for response in responses]
        >>> def exclamations(prompts, responses):
        ...     return [float(response.count("!")) for response in responses]
        >>> reward = as_reward([(-0.1, length), exclamations])
        >>> reward(["Say hello."], ["Hello!"])
        tensor([0.4000])
        >>> reward.parts
        {'length': tensor([6.]), 'exclamations': tensor([1.])}
    """

    def __init__(self, members: Sequence[Part], tokenizer: PreTrainedTokenizerBase | None = None):
        self.members, self.tokenizer = list(members), tokenizer
        self.parts: dict[str, Tensor] = {}
        self.details: dict[str, Tensor] = {}

    def __call__(
        self,
        prompts: Sequence[Any],
        responses: Sequence[str],
        columns: Mapping[str, Sequence[Any]] | None = None,
        prompt_ids: Sequence[Sequence[int]] | None = None,
        response_ids: Sequence[Sequence[int]] | None = None,
        finished: Sequence[bool] | None = None,
    ) -> Tensor:
        """Score R responses.

        Args:
            prompts: R texts or lists of messages.
            responses: R texts without special tokens.
            columns: Other columns of the data set, R values each.
            prompt_ids: R lists of token ids, for functions that ask for them.
            response_ids: Likewise.
            finished: R bools: whether the policy ended the response itself, for reward models and for functions that
                ask for it. None: unknown, so responses count as complete.

        Returns:
            `[R]` float32, on the CPU; higher is better.

        Raises:
            UserError: A reward fails, or doesn't return one finite number for each sample.
        """
        ids = {"prompt_ids": prompt_ids, "response_ids": response_ids}
        on_request: dict[str, list[Any]] = {
            name: [list(row) for row in rows] for name, rows in ids.items() if rows is not None
        }
        if finished is not None:
            on_request["finished"] = list(finished)
        samples = Samples(
            prompts=list(prompts),
            texts=self._texts(prompts, prompt_ids),
            responses=list(responses),
            columns={name: list(values) for name, values in (columns or {}).items()},
            on_request=on_request,
        )
        if len(samples.prompts) != len(samples.responses):
            raise UserError(f"A reward got {len(samples.prompts)} prompts and {len(samples.responses)} responses.")
        self.parts = {part.name: _scores(part, samples) for part in self.members}
        measured = {part.name: part.scorer.details for part in self.members if isinstance(part.scorer, ModelScorer)}
        measured = {name: details for name, details in measured.items() if details}
        self.details = {
            detail if len(measured) == 1 else f"{name}/{detail}": torch.tensor(values)
            for name, details in measured.items()
            for detail, values in details.items()
        }
        total = sum(part.weight * self.parts[part.name].double() for part in self.members)
        assert isinstance(total, Tensor)
        if (large := total.abs() > LARGEST).any():
            index = int(large.nonzero()[0])
            raise NonFiniteReward(
                f"The weighted rewards of {samples.shown(index)} make {total[index].item():g}, which is too large for "
                "float32; lower their weights."
            )
        return total.float()

    def _texts(self, prompts: Sequence[Any], prompt_ids: Sequence[Sequence[int]] | None) -> list[str]:
        """The prompts for functions: the policy's input without special tokens."""
        if self.tokenizer is not None and prompt_ids is not None:
            return [str(self.tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in prompt_ids]
        return [p if isinstance(p, str) else "\n".join(map(content_of, p)) for p in prompts]


def as_reward(
    reward: Any,
    *,
    policy: nn.Module | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Reward:
    """Turn any kind of reward into a `Reward`.

    Args:
        reward: One of
            - a `RewardModel` or `RewardEnsemble`, or its folder or Hub id; it scores the sampled token ids if its
              tokenizer and chat template are the policy's, otherwise texts;
            - a function `f(prompts, responses, **columns) -> list[float]` of texts without special tokens. It gets the
              columns of the data set that it names, or all with `**columns`; token ids if it names `prompt_ids` or
              `response_ids`; and if it names `finished`, whether the policy ended each response itself;
            - an object with `score(prompts, responses) -> list[float]`; its prompts are as in the data set, and it gets
              `prompt_ids`, `response_ids` and `finished` if it names them, but no columns;
            - a list of these, or of (weight, reward) pairs: their weighted sum.
        policy: If it is a PeftModel, or wraps one, a reward adapter's folder or Hub id whose base is the policy's is
            loaded onto that base (`AdapterReward`) instead of a second one; so are such members of an ensemble.
        tokenizer: The policy's, to decode the prompts for functions, and to check whether reward models share it.
        autocast: The context in which reward models compute; functions and other objects don't run in it.

    Raises:
        UserError: It is none of these, or a weight isn't a finite number.
    """
    if isinstance(reward, Reward):
        return reward
    entries = [_weighted(entry) for entry in reward] if isinstance(reward, list) else [(1.0, reward)]
    if not entries:
        raise UserError("reward is an empty list; give at least one reward.")
    members: list[Part] = []
    for weight, source in entries:
        name, scorer, source = _scorer(source, policy, tokenizer, autocast)
        taken = sum(part.name.partition("#")[0] == name for part in members)
        members.append(Part(f"{name}#{taken + 1}" if taken else name, weight, scorer, source))
    return Reward(members, tokenizer)


def check_functions(reward: Any, columns: Sequence[str], on_request: Sequence[str] = ON_REQUEST) -> None:
    """Check the arguments of reward functions and `score` methods before anything is loaded.

    Args:
        reward: As for `as_reward`; models and paths are not checked.
        columns: Columns of the data set except `prompt`.
        on_request: Further arguments that they get by name.

    Raises:
        UserError: One doesn't take prompts and responses, or asks for an argument that it can't get.
    """
    entries = reward.members if isinstance(reward, Reward) else reward if isinstance(reward, list) else [reward]
    for source in [part.source if isinstance(part, Part) else _weighted(part)[1] for part in entries]:
        function = _function_of(source)
        if function is not None:
            function.check(columns, on_request)


def _function_of(source: Any) -> RewardFunction | None:
    """The function, or the `score` method of an object, that scores for `source`; None for a model or a path."""
    name = getattr(source, "__name__", type(source).__name__)
    if isinstance(source, (*MODELS, Reward)):
        return None
    score = getattr(source, "score", None)
    if callable(score) and not isinstance(score, nn.Module):  # classifiers of transformers have a head of this name
        return RewardFunction(name, score, is_method=True)
    return RewardFunction(name, source) if callable(source) and not isinstance(source, nn.Module) else None


def _weighted(entry: Any) -> tuple[float, Any]:
    if not isinstance(entry, tuple):
        return 1.0, entry
    weights = [part for part in entry if isinstance(part, numbers.Real)]
    if len(entry) != 2 or len(weights) != 1:
        raise UserError(f"A weighted reward is a pair of a finite number and a reward; got {shortened(repr(entry))}.")
    if problem := number_problem(weights[0]):
        raise UserError(
            f"A weighted reward is a pair of a finite number and a reward; a weight is {problem}: "
            f"{_written(weights[0])}."
        )
    return float(weights[0]), entry[1] if entry[0] is weights[0] else entry[0]


def _scorer(
    source: Any,
    policy: nn.Module | None,
    tokenizer: PreTrainedTokenizerBase | None,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> tuple[str, Scorer, Any]:
    """A reward's name, the function that scores samples, and the loaded reward."""
    name = getattr(source, "__name__", type(source).__name__)
    if isinstance(source, (str, os.PathLike)):
        name = Path(source).name
        if is_ensemble(source):
            source = load_ensemble(source, policy)
        elif policy is not None and shares_base(policy, source):
            source = AdapterReward(policy, source)
        else:
            path, source = source, load_reward_model(source)
            if source.head_is_new:
                raise no_head(path)
        if policy is not None:
            move(source, cast(Any, policy).device)
    if isinstance(source, MODELS):
        return name, ModelScorer(name, source, tokenizer, autocast), source
    function = _function_of(source)
    if function is not None:
        return name, function, source
    raise UserError(
        f"A reward can't be a {type(source).__name__}; give a reward model or its path, a function of prompts and "
        "responses, an object with score(prompts, responses), or a list of these."
    )


def _scores(part: Part, samples: Samples) -> Tensor:
    """The checked scores of one reward, `[R]`."""
    try:
        scores = part.scorer(samples)
    except UserError:
        raise
    except Exception as error:  # any error of the user's function
        if isinstance(part.source, MODELS):  # not the user's mistake
            raise
        raise UserError(
            f"The reward '{part.name}' failed on {_culprit(part, samples)}: {type(error).__name__}: {error}"
        ) from error
    if hasattr(scores, "tolist"):
        scores = scores.tolist()
    if not isinstance(scores, Sequence) or isinstance(scores, str):
        raise UserError(f"The reward '{part.name}' returned a {type(scores).__name__}; return a list of numbers.")
    if len(scores) != len(samples.responses):
        raise UserError(
            f"The reward '{part.name}' returned {len(scores)} scores for {len(samples.responses)} responses; "
            "return one for each."
        )
    return torch.tensor([_number(part, samples, index, score) for index, score in enumerate(scores)])


def _number(part: Part, samples: Samples, index: int, score: Any) -> float:
    if isinstance(score, Tensor) and score.numel() == 1:
        score = score.item()
    if not isinstance(score, numbers.Real):
        raise UserError(
            f"The reward '{part.name}' gave {shortened(repr(score))} instead of a number to {samples.shown(index)}; "
            "give every response a number."
        )
    if not isinstance(score, bool) and number_problem(score):
        fix = "check its weights" if isinstance(part.source, MODELS) else NO_SCORE
        raise NonFiniteReward(f"The reward '{part.name}' gave {_written(score)} to {samples.shown(index)}; {fix}.")
    return float(score)


def _written(number: Any) -> str:
    try:
        return str(float(number))
    except OverflowError:
        return "an integer too large for any float"


def _culprit(part: Part, samples: Samples) -> str:
    """The first sample that fails by itself, or else the batch."""
    for index in range(len(samples.responses)):
        try:
            part.scorer(samples.one(index))
        except Exception:  # the same
            return samples.shown(index)
    return f"a batch of {len(samples.responses)} samples"
