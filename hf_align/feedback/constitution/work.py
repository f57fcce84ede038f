"""What the model is asked, batch by batch: texts and yes-or-no questions, each stored before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from scipy.special import expit

from hf_align.collators.rows import Message
from hf_align.collators.tools import NESTED
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback.collection.writers import LoadedPolicy, Policy, Request, Text, Writer
from hf_align.feedback.constitution.config import ConstitutionConfig
from hf_align.feedback.constitution.conversation import ask_check, ask_empty_check
from hf_align.feedback.constitution.principles import Constitution, Principle
from hf_align.feedback.records import Prompt
from hf_align.layout.branches import Branches
from hf_align.models.adapters import evaluation_mode
from hf_align.models.logits import logit_transform
from hf_align.models.policy import PolicyModel, shaped_logits
from hf_align.models.scoring import outputs_of
from hf_align.rollouts.sampler import Sampler

Criticised = tuple[Prompt, str, Principle]
"""A prompt in messages, the response to it, and a principle."""


@dataclass
class Work:
    """A writer, what it is asked, and the finished steps.

    Attributes:
        constitution: The constitution.
        config: Options.
        writer: Who writes.
        parts: Finished steps of batches, by everything that determines them.
    """

    constitution: Constitution
    config: ConstitutionConfig
    writer: Writer
    parts: Parts
    shifts: dict[str, float] = field(default_factory=dict)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines what the writer writes."""
        return self.writer.identity()

    def write(
        self, prompts: Sequence[Prompt], what: str, *, temperature: float, max_new_tokens: int, count: int = 1
    ) -> list[list[Text]]:
        """`count` texts for each prompt, which are asked for together.

        Args:
            prompts: Different prompts.
            what: What for; another purpose has another seed.
            temperature: Sampling temperature.
            max_new_tokens: Length limit, in tokens.
            count: Texts for each prompt.
        """
        if not prompts:
            return []
        size = max(1, len(prompts) * count)
        request = Request(count, temperature, max_new_tokens, size, f"{self.config.seed}/{what}")
        asked = [[prompt.content, dict(prompt.columns)] for prompt in prompts]

        def compute() -> list[list[Any]]:
            written = dict(self.writer.write(prompts, request, Parts()))
            return [[[text.text, text.settings] for text in written[prompt.id]] for prompt in prompts]

        made = self.parts.get({"writer": self.identity, "request": asdict(request), "prompts": asked}, compute)
        return [[Text(*text) for text in texts] for texts in made]

    @property
    def sampler(self) -> Sampler | None:
        """The writer's model, if it is one and is to be asked yes or no."""
        policy = isinstance(self.writer, Policy | LoadedPolicy) and self.config.check
        return cast(Any, self.writer).sampler if policy else None

    def broken(self, asked: Sequence[Criticised]) -> list[float | None]:
        """Probability that each response breaks the principle, as the model says; None: it isn't asked."""
        if self.sampler is None or not asked:
            return [None] * len(asked)
        shown, constitution = self.config.examples, self.constitution
        shifts = self._shifts({principle.id for _, _, principle in asked}) if self.config.calibrate else {}
        conversations = [
            replaced(prompt, ask_check(constitution, shown, cast(Any, prompt.content), response, principle))
            for prompt, response, principle in asked
        ]
        odds = self._odds(conversations)
        less = [shifts.get(principle.id, 0.0) for _, _, principle in asked]
        return expit(np.subtract(odds, less)).tolist()

    def _shifts(self, ids: set[str]) -> dict[str, float]:
        """Log-odds of each principle's question about nothing."""
        for id in sorted(ids - self.shifts.keys()):
            empty = ask_empty_check(self.constitution, self.config.examples, self.constitution.get(id))
            (self.shifts[id],) = self._odds([Prompt(empty)])
        return self.shifts

    def _odds(self, conversations: Sequence[Prompt]) -> list[float]:
        check, sampler = self.constitution.check, cast(Sampler, self.sampler)
        asked = [[prompt.content, dict(prompt.columns)] for prompt in conversations]
        key = {"answers": [check.yes, check.no], "model": self.identity, "asked": asked}
        return self.parts.get(key, lambda: answer_odds(sampler, conversations, check.yes, check.no))


def replaced(prompt: Prompt, messages: list[Message]) -> Prompt:
    """A prompt with other messages, and the same options of the chat template."""
    return Prompt(messages, prompt.pool, prompt.domain, prompt.columns)


@torch.no_grad()
def answer_odds(sampler: Sampler, conversations: Sequence[Prompt], yes: str, no: str) -> list[float]:
    """`[N]` log-odds that a model begins its next message with the one word against the other.

    Compared are the log-probs of the words' first tokens, in one pass over each conversation.

    Raises:
        UserError: The words begin with the same token.
    """
    first, second = (sampler.tokenizer(word, add_special_tokens=False)["input_ids"][:1] for word in (yes, no))
    if first == second:
        raise UserError(f"check: {yes!r} and {no!r} begin with the same token of this model; give two other words")
    options = [{name: prompt.columns[name] for name in NESTED if prompt.columns.get(name)} for prompt in conversations]
    ids = sampler.encode([prompt.content for prompt in conversations], options, "conversations")
    wrapper = PolicyModel(sampler.model)
    wrapper.shares_prompts = False  # one answer to each: plain rows
    head = shaped_logits(cast(Any, wrapper).get_output_embeddings(), logit_transform(wrapper), 1.0)

    def odds(branches: Branches) -> list[float]:
        logits = head(wrapper(branches, return_states=True)).double()
        return (logits[:, first[0]] - logits[:, second[0]]).tolist()

    with evaluation_mode(sampler.model):
        return outputs_of(wrapper, [(each, first) for each in ids], sampler.tokenizer.pad_token_id, odds)
