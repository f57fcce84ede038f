"""Any sequence classifier as a reward model: encoders, several outputs, heads that aren't `score`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.collators.checks import read_rows
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import RowProblem, Side
from hf_align.collators.templates import ChatTemplate
from hf_align.models.adapters import evaluation_mode
from hf_align.models.decoders import positions_of
from hf_align.models.outputs import Output
from hf_align.models.scoring import BATCH_TOKENS
from hf_align.models.vocabulary import check_token_ids

logger = logging.get_logger(__name__)

Inputs = dict[str, list[int]]
"""A row's `input_ids`, and `token_type_ids` if its tokenizer has segments."""
SAME = {True: 1e-5, False: 2e-2}
"""Difference of a score with and without padding, in float32 (True) or coarser, that is rounding."""


class TextClassifier(nn.Module):
    """A sequence classifier with its tokenizer, of which one output is the reward.

    A text is written as the classifier reads it: a head on the last token gets prompt and response as one text that
    ends with EOS, as in training here; any other gets what its tokenizer makes of a pair of texts, `[CLS] prompt [SEP]
    response [SEP]` for BERT. Rows are padded on the right where that changes no score, which the first batch shows;
    otherwise only rows of one length share a batch.

    Args:
        model: The classifier or its PeftModel.
        tokenizer: Its tokenizer.
        output: The output that is the reward.
        reads_end: Whether its head scores the last token.

    Attributes:
        cut: Rows so far whose prompts' beginnings were cut, since the model has too few positions.
    """

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, output: Output, *, reads_end: bool):
        super().__init__()
        self.model, self.tokenizer, self.output, self.reads_end = model, tokenizer, output, reads_end
        self.cut = 0
        self._pads: bool | None = None if tokenizer.pad_token_id is not None else False

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return cast(Any, self.model).device

    @property
    def positions(self) -> int:
        """Maximum number of tokens of a row."""
        positions = positions_of(cast(Any, self.model).config)
        return min(self.tokenizer.model_max_length, positions or self.tokenizer.model_max_length)

    def score(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[float]:
        """Score responses to prompts; arguments as in `RewardModel.score`.

        Raises:
            UserError: A row can't be written, or its response alone is longer than the model reads.
        """
        samples = list(
            zip(
                prompts,
                responses,
                finished if finished is not None else [True] * len(prompts),
                rows if rows is not None else [{}] * len(prompts),
                strict=True,
            )
        )
        before = self.cut
        write = self._writer()
        encoded = read_rows(samples, lambda sample: write(*sample), "score")
        check_token_ids(self.model, self.tokenizer, (row["input_ids"] for row in encoded), "score")
        if self.cut > before == 0:
            logger.warning(
                f"The model reads {self.positions} tokens: the beginnings of longer rows' prompts are cut ({self.cut} "
                f"of these {len(encoded)} rows)."
            )
        return self._score_encoded(encoded)

    def score_ids(self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]) -> list[float]:
        """Score responses to prompts, given as token ids, by a head on the last token; nothing is added."""
        rows = zip(prompt_ids, response_ids, strict=True)
        return self._score_encoded([{"input_ids": [*prompt, *response]} for prompt, response in rows])

    def _writer(self) -> Any:
        if not self.reads_end:
            return self._write
        encoder = PairEncoder(self.tokenizer)

        def write(prompt: Side, response: Side, ended: bool, row: Mapping[str, Any]) -> Inputs:
            prompt_ids, ids = encoder.prompt_and_response(prompt, response, dict(row))
            conversational = isinstance(prompt, list) or isinstance(response, list)
            return {"input_ids": prompt_ids + (ids if ended else encoder.unended(ids, conversational=conversational))}

        return write

    def _write(self, prompt: Side, response: Side, ended: bool, row: Mapping[str, Any]) -> Inputs:
        """A row as its tokenizer writes a pair of texts, or a conversation by its chat template.

        A cut response ends like any other: the end isn't part of these texts.
        """
        if isinstance(prompt, list) or isinstance(response, list):
            prompt = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            response = response if isinstance(response, list) else [{"role": "assistant", "content": response}]
            text = ChatTemplate(self.tokenizer).whole(prompt, response, dict(row))
            first: Any = self.tokenizer.bos_token or self.tokenizer.cls_token or "\0"
            started = text.startswith(first)
            return self._fitted((text,), add_special_tokens=not started)
        return self._fitted((prompt, response))

    def _fitted(self, texts: tuple[str, ...], **settings: Any) -> Inputs:
        tokenizer: Any = self.tokenizer
        limit = self.positions
        encoded = tokenizer(*texts, verbose=False, **settings)
        if len(encoded["input_ids"]) > limit:
            response = len(tokenizer(texts[-1], add_special_tokens=False, verbose=False)["input_ids"])
            if len(texts) == 2 and response + tokenizer.num_special_tokens_to_add(pair=True) >= limit:
                raise RowProblem(f"a response longer than the {limit} tokens that the model reads")
            side, tokenizer.truncation_side = tokenizer.truncation_side, "left"
            try:
                encoded = tokenizer(*texts, truncation="only_first", max_length=limit, verbose=False, **settings)
            finally:
                tokenizer.truncation_side = side
            self.cut += 1
        return {name: list(encoded[name]) for name in ("input_ids", "token_type_ids") if name in encoded}

    @torch.no_grad()
    def _score_encoded(self, encoded: Sequence[Inputs]) -> list[float]:
        scores = [0.0] * len(encoded)
        with evaluation_mode(self):
            if self._pads is None and len({len(row["input_ids"]) for row in encoded}) > 1:
                self._pads = self._padding_is_harmless(encoded)
            for numbers in _batches(encoded, one_length=not self._pads):
                for number, value in zip(numbers, self._forward([encoded[n] for n in numbers]).tolist(), strict=True):
                    scores[number] = value
        return scores

    def _forward(self, rows: Sequence[Inputs]) -> Tensor:
        """Rewards `[R]` float32 of rows, padded on the right."""
        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": self.tokenizer.pad_token_id or 0}
        inputs = {
            name: torch.tensor([row[name] + [fill.get(name, 0)] * (width - len(row[name])) for row in rows])
            for name in rows[0]
        }
        lengths = torch.tensor([[len(row["input_ids"])] for row in rows])
        inputs["attention_mask"] = (torch.arange(width) < lengths).long()
        logits = self.model(**{name: values.to(self.device) for name, values in inputs.items()}).logits
        return self.output.rewards(logits.float())

    def _padding_is_harmless(self, encoded: Sequence[Inputs]) -> bool:
        """Whether the shortest row scores the same padded to the longest."""
        short, long = (pick(encoded, key=lambda row: len(row["input_ids"])) for pick in (min, max))
        alone, padded = self._forward([short])[0], self._forward([short, long])[0]
        exact = cast(Any, self.model).dtype == torch.float32
        return bool((alone - padded).abs() <= SAME[exact] * alone.abs().clamp(min=1))


def _batches(encoded: Sequence[Inputs], *, one_length: bool) -> Iterator[list[int]]:
    """Indices of rows for each batch, short ones first, of at most BATCH_TOKENS padded tokens."""

    def length(n: int) -> int:
        return len(encoded[n]["input_ids"])

    batch: list[int] = []
    for number in sorted(range(len(encoded)), key=length):
        full = (len(batch) + 1) * length(number) > BATCH_TOKENS
        if batch and (full or (one_length and length(number) != length(batch[0]))):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
