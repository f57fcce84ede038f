"""Features of responses: pooled hidden states of a language model, on which a head is fitted to the answers so far."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.feedback.collection.choose import Comparison
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.head import EvenFeatures
from hf_align.feedback.collection.responses import FINISHED
from hf_align.feedback.collection.state import State
from hf_align.feedback.collection.writers import LoadedPolicy, Policy, Writer, open_model
from hf_align.feedback.records import Prompt, Response
from hf_align.models.adapters import evaluation_mode
from hf_align.models.decoders import positions_of
from hf_align.models.quantized import Quantization
from hf_align.models.scoring import encode_texts, outputs_of
from hf_align.models.states import StatesModel
from hf_align.progress import Progress

HALF = float(np.finfo(np.float16).max)
"""States are kept in 16 bits, the few that are larger cut."""


def read_features(given: Any, writers: Sequence[Writer], quantization: Quantization = None) -> Policy | LoadedPolicy:
    """The language model whose states are features; not loaded yet, and not twice if it writes, too.

    Args:
        given: A folder, Hub id, loaded model or pair of model and tokenizer; None: the first language model of
            `writers`.
        writers: Who writes responses.
        quantization: As of `open_models`.

    Raises:
        UserError: It is none of these.
    """
    policies = [writer for writer in writers if isinstance(writer, Policy | LoadedPolicy)]
    if given is None:
        if not policies:
            raise UserError(
                "selection is 'information' and there is no ensemble to choose by; give `reward`, or a language model "
                "as `features`"
            )
        return policies[0]
    if isinstance(given, str | os.PathLike):
        source = os.fspath(given)
        if same := [each for each in policies if isinstance(each, Policy) and each.source == source]:
            return same[0]
    model = open_model(given, quantization=quantization, field="features")
    if not isinstance(model, Policy | LoadedPolicy):
        raise UserError("features is a function; give a language model by its folder, Hub id or loaded")
    return model


class ResponseFeatures:
    """Features of responses to prompts, as `EvenFeatures` of pooled states (`hf_align.models.states`).

    Pairs are of one prompt, so the mean over a prompt's responses is taken off first: it cancels in every pair, and
    would otherwise fill the features with what tells prompts apart.

    States are computed once, a prompt at a time, so that they depend on nothing else: a run that was killed finds or
    computes the same bits.

    Args:
        policy: The language model.
        parts: Keeps states between calls.
    """

    def __init__(self, policy: Policy | LoadedPolicy, parts: Parts) -> None:
        self.name = policy.name
        self.policy = policy
        self.parts = parts
        self.kept: dict[tuple[str, ...], NDArray[np.float16]] = {}

    def __call__(
        self, prompts: Sequence[Prompt], responses: Mapping[str, Sequence[Response]], progress: Progress
    ) -> dict[str, NDArray[np.float64]]:
        """Features `[d]` of all responses to the prompts, by the response's id.

        Args:
            prompts: Different prompts.
            responses: All responses to each, by the prompt's id.
            progress: Receiver of progress.

        Raises:
            UserError: A prompt with a response has more tokens than the model has positions.
        """
        ids, centred = [], []
        label = f"states of {self.name}"
        with evaluation_mode(self.policy.sampler.model), progress.task(label, len(prompts)) as advance:
            for done, prompt in enumerate(sorted(prompts, key=lambda each: each.id), start=1):
                texts = sorted(responses[prompt.id], key=lambda each: each.id)
                states = self._states(prompt, texts).astype(float)
                ids += [each.id for each in texts]
                centred.append(states - states.mean(0))
                advance(done, "")
        rows = np.concatenate(centred)
        return dict(zip(ids, EvenFeatures.fit(rows)(rows), strict=True))

    @cached_property
    def _model(self) -> StatesModel:
        return StatesModel(self.policy.sampler.model)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {**self.policy.sampler.identity(), "states": self._model.places}

    def _states(self, prompt: Prompt, responses: Sequence[Response]) -> NDArray[np.float16]:
        """`[S, D]` pooled states of a prompt's responses."""
        name = (prompt.id, *(each.id for each in responses))
        if name not in self.kept:
            tokenizer = self.policy.sampler.tokenizer
            encoded = encode_texts(
                self._model,
                tokenizer,
                [prompt.content] * len(responses),
                [each.content for each in responses],
                [each.settings.get(FINISHED) is not False for each in responses],
                [prompt.columns] * len(responses),
            )
            longest, positions = max(len(p) + len(r) for p, r in encoded), positions_of(self._model.config)
            if positions is not None and longest > positions:
                raise UserError(
                    f"features: {self.name} has {positions} positions, and a response takes {longest} with its prompt "
                    f"{str(prompt.content)[:60]!r}; name a model with more as `features`"
                )

            def compute() -> str:
                states = outputs_of(
                    self._model, encoded, tokenizer.pad_token_id, lambda branches: list(self._model(branches).cpu())
                )
                halves = torch.stack(states).clamp(-HALF, HALF).half().numpy()
                return base64.b64encode(halves.astype("<f2").tobytes()).decode()

            kept = base64.b64decode(self.parts.get({**self._identity, "texts": encoded}, compute))
            self.kept[name] = np.frombuffer(kept, "<f2").reshape(len(responses), -1)
        return self.kept[name]


def comparisons_of(state: State) -> list[Comparison]:
    """The answers that count, in an order that hangs on nothing but them; none of gold questions."""
    return [
        (state.tasks[id].first_id, state.tasks[id].second_id, answer.preference)
        for id in sorted(state.reviews)
        for answer in sorted(state.reviews[id].counting, key=lambda each: each.annotator)
        if answer.preference is not None
    ]


def next_round(state: State, config: CollectionConfig) -> int:
    """Pairs to lay out next for a head that is fitted to the answers so far; 0 while it is to wait for answers.

    The first round asks for `first_answers` in all, each further one for half as many as were asked for before, as in
    docs/results/feedback.md, once half of the last one's are there.
    """
    last = [id for id, task in state.tasks.items() if task.choice.get("round") == state.round - 1]
    waiting = [state.reviews[id] for id in last if state.reviews[id].state == "asked"]
    if 2 * sum(each.wanted - each.given for each in waiting) > sum(state.reviews[id].wanted for id in last):
        return 0
    first = -(-config.first_answers // config.annotators_per_task)
    return max(first - len(state.tasks), len(state.tasks) // 2, 1)
