"""Reward models as rewards: they score the sampled token ids if the tokenizers agree, otherwise texts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.collators.encoding import Ids, PairEncoder
from hf_align.collators.tools import NESTED
from hf_align.models.encodings import encoding_difference
from hf_align.models.reward import RewardModel
from hf_align.rewards.adapter import AdapterReward
from hf_align.rewards.functions import Samples

logger = logging.get_logger(__name__)


class ModelScorer:
    """A reward model that scores samples.

    Decoding and encoding text again may give other tokens than the sampled ones. So a model with the policy's tokenizer
    and chat template gets the ids.

    Args:
        name: Name of the reward, for the log.
        model: The reward model.
        policy_tokenizer: Tokenizer of the samples' ids; None: unknown, so texts are scored.
        autocast: The context in which the model computes.

    Attributes:
        takes_ids: Whether it scores ids.
    """

    def __init__(
        self,
        name: str,
        model: RewardModel | AdapterReward,
        policy_tokenizer: PreTrainedTokenizerBase | None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ):
        self.model, self.autocast, self.encoder = model, autocast, PairEncoder(model.tokenizer)
        self.takes_ids = False
        if policy_tokenizer is None:
            return
        difference = encoding_difference(policy_tokenizer, model.tokenizer)
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
        with self.autocast():
            if not self.takes_ids or not {"prompt_ids", "response_ids"} <= given.keys():
                options = {name: samples.columns[name] for name in NESTED if name in samples.columns}
                rows = [{name: values[n] for name, values in options.items()} for n in range(len(samples.prompts))]
                return self.model.score(samples.prompts, samples.responses, given.get("finished"), rows)
            finished = given.get("finished", [True] * len(samples.responses))
            rows = zip(samples.prompts, given["response_ids"], finished, strict=True)
            return self.model.score_ids(given["prompt_ids"], [self._with_end(*row) for row in rows])

    def _with_end(self, prompt: Any, ids: Ids, finished: bool) -> Ids:
        """A response as sampled; if it has ended, with the end that the model learnt."""
        return self.encoder.ended(ids, conversational=isinstance(prompt, list)) if finished else ids
