"""Reward models and ensembles as rewards: they score the sampled ids if the tokenizers agree, otherwise texts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.collators.encoding import Ids, PairEncoder
from hf_align.collators.tools import NESTED
from hf_align.models.encodings import encoding_difference
from hf_align.models.ensemble import RewardEnsemble, members_of
from hf_align.models.reward import RewardModel
from hf_align.rewards.adapter import AdapterReward
from hf_align.rewards.functions import Samples

logger = logging.get_logger(__name__)

MODELS = (RewardModel, AdapterReward, RewardEnsemble)
"""Rewards that `ModelScorer` calls."""
CONSERVATIVE = ("min", "uncertainty_weighted")
"""Methods of ensembles that score below the members' mean where they disagree."""


def move(model: Any, device: torch.device | str) -> None:
    """Move a reward model, or each of an ensemble's, to a device; quantised weights stay where they are."""
    for member in members_of(model):
        if isinstance(member, RewardModel) and getattr(member.model, "quantization_method", None) is None:
            member.to(device)


class ModelScorer:
    """A reward model or an ensemble that scores samples.

    Decoding and encoding text again may give other tokens than the sampled ones. So a model with the policy's tokenizer
    and chat template gets the ids.

    Args:
        name: Name of the reward, for the log.
        model: The reward model or ensemble.
        policy_tokenizer: Tokenizer of the samples' ids; None: unknown, so texts are scored.
        autocast: The context in which the model computes.

    Attributes:
        takes_ids: Whether it scores ids.
        details: Of an ensemble, for each response of the last call: "std" of the members' scores, and with a
            conservative method "penalty", what it takes off their mean. A weight average is one model and has none.
    """

    def __init__(
        self,
        name: str,
        model: RewardModel | AdapterReward | RewardEnsemble,
        policy_tokenizer: PreTrainedTokenizerBase | None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ):
        self.model, self.autocast, self.encoder = model, autocast, PairEncoder(model.tokenizer)
        self.takes_ids = False
        self.details: dict[str, list[float]] = {}
        self._measured: tuple[str, ...] = ()
        if isinstance(model, RewardEnsemble) and model.method != "weight_average":
            self._measured = ("std", "penalty") if model.method in CONSERVATIVE else ("std",)
        if policy_tokenizer is None:
            return
        difference = encoding_difference(policy_tokenizer, model.tokenizer)
        if difference is None and isinstance(model, RewardEnsemble) and not model.takes_ids:
            difference = "tokenizer in some of its members"
        self.takes_ids = difference is None
        if self.takes_ids:
            logger.info(f"The reward '{name}' scores the sampled token ids: its tokenizer is the policy's.")
        else:
            logger.warning(
                f"The reward '{name}' scores texts, encoded by its own tokenizer: it has another {difference} than the "
                "policy's."
            )

    def __call__(self, samples: Samples) -> list[float]:
        """Score the samples; cut responses get no end."""
        given = samples.on_request
        measured: Any = {"return_uncertainty": self._measured} if self._measured else {}
        found: Any
        with self.autocast():
            if not self.takes_ids or not {"prompt_ids", "response_ids"} <= given.keys():
                options = {name: samples.columns[name] for name in NESTED if name in samples.columns}
                rows = [{name: values[n] for name, values in options.items()} for n in range(len(samples.prompts))]
                found = self.model.score(samples.prompts, samples.responses, given.get("finished"), rows, **measured)
            else:
                finished = given.get("finished", [True] * len(samples.responses))
                rows = zip(samples.prompts, given["response_ids"], finished, strict=True)
                responses = [self._with_end(*row) for row in rows]
                found = self.model.score_ids(given["prompt_ids"], responses, **measured)
        if not measured:
            return found
        scores, self.details = found
        return scores

    def _with_end(self, prompt: Any, ids: Ids, finished: bool) -> Ids:
        """A response as sampled; if it has ended, with the end that the model learnt."""
        return self.encoder.ended(ids, conversational=isinstance(prompt, list)) if finished else ids
