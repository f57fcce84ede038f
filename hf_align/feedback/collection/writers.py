"""Those who write responses: policies, models behind endpoints, and functions of the user."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, cast

from torch import nn
from transformers import PreTrainedTokenizerBase

from hf_align.collators.rows import Side, text_of
from hf_align.collators.tools import template_columns
from hf_align.data.code import code_digest
from hf_align.data.parts import Parts, digest
from hf_align.errors import UserError
from hf_align.feedback.judges.endpoint.client import EndpointClient
from hf_align.feedback.judges.endpoint.completion import ChatRequest
from hf_align.feedback.records import Prompt
from hf_align.models.kinds import check_is_policy
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.sources import check_source, load_config, load_tokenizer
from hf_align.numbers import plural
from hf_align.rollouts.sampler import Sampler, check_positions

Function = Callable[[list[Side]], Sequence[str]]
"""Writes one text for each prompt (text or messages)."""


class Text(NamedTuple):
    """A text, and how it came about."""

    text: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is asked of a writer.

    Attributes:
        count: Texts for each prompt.
        temperature: Sampling temperature.
        max_new_tokens: Length limit, in tokens.
        batch_size: Texts written at a time, rounded to whole prompts.
        seed: Any text; another one gives other samples.
    """

    count: int
    temperature: float
    max_new_tokens: int
    batch_size: int
    seed: str


class Writer(Protocol):
    """Something that writes texts to prompts under a name."""

    @property
    def name(self) -> str:
        """The source of its responses."""
        ...

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse prompts that it can't answer."""
        ...

    def identity(self) -> dict[str, Any]:
        """What determines its texts besides prompts and request, as JSON can write it; loads a model."""
        ...

    def write(self, prompts: Sequence[Prompt], request: Request, parts: Parts) -> Iterator[tuple[str, list[Text]]]:
        """`request.count` texts for each prompt, by the prompt's id, in any order.

        Texts that `parts` has are taken from there, so that nothing is written twice; new ones are kept there.
        """
        ...


def open_models(models: Any, *, quantization: Quantization = None) -> list[Writer]:
    """Models that respond to prompts, checked but not loaded yet.

    A policy is loaded when it is first asked, and stays loaded.

    Args:
        models: A list, or a mapping from names to them, of Hub ids, folders, loaded language models (or pairs of a
            model and its tokenizer), `EndpointClient`s, and functions `list[prompt] -> list[text]`. Without names a
            function has its own. Its responses are kept by its name and the digest of its file (`code_digest`).
        quantization: Quantisation of policies that are loaded.

    Raises:
        UserError: One of them can't write, or two have one name.

    Example:
        >>> from hf_align.feedback.collection.writers import open_models
        >>> [model.name for model in open_models({"echo": lambda prompts: [f"{prompt}?" for prompt in prompts]})]
        ['echo']
    """
    if isinstance(models, Mapping):
        named = [(name, model) for name, model in models.items()]
    else:
        several = isinstance(models, list) or (isinstance(models, tuple) and not _is_pair(models))
        named = [(None, model) for model in (models if several else [models])]
    writers: list[Writer] = [open_model(model, name, quantization) for name, model in named]
    if not writers:
        raise UserError("models is empty; name at least one model that writes responses.")
    names = [writer.name for writer in writers]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"models has {twice!r} twice; name each once, or give a mapping from different names.")
    return writers


def _is_pair(model: Any) -> bool:
    return isinstance(model, tuple) and len(model) == 2 and isinstance(model[0], nn.Module)


def open_model(
    model: Any, name: str | None = None, quantization: Quantization = None, *, field: str = "models"
) -> Policy | LoadedPolicy | EndpointWriter | WritingFunction:
    """One of `open_models`; messages name it as what the user gave as `field`."""
    if isinstance(model, str | os.PathLike):
        source = os.fspath(model)
        check_source(source)
        check_is_policy(source, field, ask_hub=True)
        return Policy(name or source, source, quantization)
    if isinstance(model, EndpointClient):
        return EndpointWriter(name or model.access.model, model)
    module, tokenizer = model if _is_pair(model) else (model, None)
    if isinstance(module, nn.Module):
        check_is_policy(module, field)
        source = getattr(getattr(module, "config", None), "name_or_path", "")
        if not source and (name is None or tokenizer is None):
            raise UserError(
                f"{field} has a {type(module).__name__} that doesn't say where it is from; give a mapping from its "
                "name to (model, tokenizer)."
            )
        return LoadedPolicy(name or source, module, tokenizer or load_tokenizer(source))
    if not callable(model):
        raise UserError(f"{field} has {model!r}; give Hub ids, folders, loaded models, endpoints or functions.")
    own = getattr(model, "__name__", "<none>")
    if name is None and own.startswith("<"):
        raise UserError(f"{field} has a function without a name; give a mapping from its name to it.")
    return WritingFunction(name or own, cast(Function, model))


class _SamplingPolicy:
    """What loaded policies and those still to load share."""

    name: str
    sampler: Sampler

    def identity(self) -> dict[str, Any]:
        """Weights, versions, device and end tokens."""
        return self.sampler.identity()

    def write(self, prompts: Sequence[Prompt], request: Request, parts: Parts) -> Iterator[tuple[str, list[Text]]]:
        """See `Writer`."""
        sampler, identity = self.sampler, self.sampler.identity()
        ids = sampler.encode(
            [prompt.content for prompt in prompts], [template_columns(prompt.columns) for prompt in prompts], "prompts"
        )
        how = {"count": request.count, "temperature": request.temperature, "max_new_tokens": request.max_new_tokens}
        settings = {"temperature": request.temperature, "max_new_tokens": request.max_new_tokens}
        settings |= {"seed": request.seed, "weights": identity["weights"][:16]}
        keys = [{**identity, **how, "seed": request.seed, "prompt": each} for each in ids]

        def sample(block: Sequence[int]) -> list[list[Any]]:
            asked = [ids[number] for number in block]
            seed = _number([request.seed, request.temperature, asked])
            samples = sampler.sample(
                asked,
                num_samples=request.count,
                max_new_tokens=request.max_new_tokens,
                temperature=request.temperature,
                seed=seed,
            )
            return [[[sample.text, sample.finished] for sample in each] for each in samples]

        # Prompts of similar length together: the shorter ones are padded.
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        with sampler.accelerated():
            for number, found in _each(keys, order, sample, request, parts):
                yield prompts[number].id, [Text(text, {**settings, "finished": ended}) for text, ended in found]


@dataclass
class Policy(_SamplingPolicy):
    """A policy given by its name.

    Attributes:
        name: The source of its responses.
        source: Its folder or Hub id.
        quantization: How it is loaded.
    """

    name: str
    source: str
    quantization: Quantization = None

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse prompts that leave no room for a response; nothing is loaded but tokenizer and config."""
        tokenizer, config = load_tokenizer(self.source), load_config(self.source)
        _check(self.name, tokenizer, config, prompts, max_new_tokens)

    @cached_property
    def sampler(self) -> Sampler:  # type: ignore[override]
        """The policy, loaded when it is first asked."""
        model = load_policy(self.source, quantization=self.quantization)
        return Sampler(to_gpu(model, self.quantization), load_tokenizer(self.source))


class LoadedPolicy(_SamplingPolicy):
    """A policy given as an object; it stays where it is.

    Args:
        name: The source of its responses.
        model: A decoder language model or a PeftModel.
        tokenizer: Its tokenizer.
    """

    def __init__(self, name: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self.sampler = Sampler(model, tokenizer)

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse prompts that leave no room for a response."""
        _check(self.name, self.sampler.tokenizer, self.sampler.model.config, prompts, max_new_tokens)


@dataclass
class EndpointWriter:
    """A chat model behind an endpoint; a text prompt is sent as a user's message.

    Attributes:
        name: The source of its responses.
        client: The client, which asks for each response once, whatever `parts` has.
    """

    name: str
    client: EndpointClient

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Refuse prompts with columns for a chat template, which an endpoint doesn't get; lengths are its business."""
        for prompt in prompts:
            if columns := template_columns(prompt.columns):
                raise UserError(
                    f"models: {self.name} is behind an endpoint, which gets messages only; leave out prompts with "
                    f"{' and '.join(columns)}, such as {text_of(prompt.content)[:60]!r}."
                )

    def identity(self) -> dict[str, Any]:
        """Model and endpoint."""
        return {"endpoint": self.client.identity()}

    def write(self, prompts: Sequence[Prompt], request: Request, parts: Parts) -> Iterator[tuple[str, list[Text]]]:
        """See `Writer`; each response is a request of its own, with another seed."""
        settings = {"temperature": request.temperature, "max_new_tokens": request.max_new_tokens, "seed": request.seed}
        asked = [[self._request(each.content, request, number) for number in range(request.count)] for each in prompts]
        keys = [{"endpoint": list(map(self.client.key_of, group))} for group in asked]

        def ask(block: Sequence[int]) -> list[list[Any]]:
            answers = self.client.complete_all([each for number in block for each in asked[number]])
            texts = ([answer.text, answer.finish_reason != "length"] for answer in answers)
            return [[next(texts) for _ in asked[number]] for number in block]

        for number, found in _each(keys, range(len(keys)), ask, request, parts):
            yield prompts[number].id, [Text(text, {**settings, "finished": ended}) for text, ended in found]

    def _request(self, prompt: Side, request: Request, number: int) -> ChatRequest:
        return ChatRequest(
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
            max_tokens=request.max_new_tokens,
            temperature=request.temperature,
            seed=_number([request.seed, number]) % 2**31,
        )


@dataclass
class WritingFunction:
    """A function that writes one text for each prompt.

    Attributes:
        name: The source of its responses; they are kept under it and the digest of the code.
        function: The function.
    """

    name: str
    function: Function

    def check(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """A function takes any prompt."""

    def identity(self) -> dict[str, Any]:
        """Its name and code."""
        return {"function": self.name, "code": code_digest(self.function)}

    def write(self, prompts: Sequence[Prompt], request: Request, parts: Parts) -> Iterator[tuple[str, list[Text]]]:
        """See `Writer`; the function gets each prompt `count` times in a row, and doesn't see the temperature."""
        identity = self.identity()
        keys = [{**identity, "prompt": each.content, "count": request.count, "seed": request.seed} for each in prompts]

        def call(block: Sequence[int]) -> list[list[Any]]:
            texts = self._call([prompts[number].content for number in block for _ in range(request.count)])
            return [texts[start : start + request.count] for start in range(0, len(texts), request.count)]

        for number, found in _each(keys, range(len(keys)), call, request, parts):
            yield prompts[number].id, [Text(text, {}) for text in found]

    def _call(self, prompts: list[Side]) -> list[str]:
        try:
            returned = self.function(prompts)
        except Exception as error:  # any error of the user's function
            raise UserError(f"models: {self.name} failed: {type(error).__name__}: {error}") from error
        if not isinstance(returned, Iterable) or isinstance(returned, str):
            raise UserError(f"models: {self.name} must return a list of texts; it returned {returned!r:.80}.")
        texts = list(returned)
        if len(texts) != len(prompts):
            raise UserError(
                f"models: {self.name} must return a text for each prompt; it got {plural(len(prompts), 'prompt')} and "
                f"returned {plural(len(texts), 'text')}."
            )
        if others := [text for text in texts if not isinstance(text, str)]:
            raise UserError(f"models: {self.name} must return texts; it returned {others[0]!r}.")
        return texts


def _each(
    keys: Sequence[Any],
    order: Sequence[int],
    compute: Callable[[Sequence[int]], list[list[Any]]],
    request: Request,
    parts: Parts,
) -> Iterator[tuple[int, list[Any]]]:
    """What each key has: kept earlier, or computed in blocks.

    A block is kept together, each key's part for itself. Samples depend on their whole block, so a run that was killed
    must not find half of one.
    """
    new: list[int] = []
    for number in order:
        if (found := parts.find(keys[number])) is not None:
            yield number, found
        else:
            new.append(number)
    size = max(1, request.batch_size // request.count)
    for start in range(0, len(new), size):
        block = new[start : start + size]
        made = list(zip(block, compute(block), strict=True))
        parts.put_together([(keys[number], part) for number, part in made])
        yield from made


def _check(name: str, tokenizer: Any, config: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    contents = [prompt.content for prompt in prompts]
    check_positions(
        name,
        tokenizer,
        config,
        contents,
        [template_columns(prompt.columns) for prompt in prompts],
        max_new_tokens,
        "prompts",
    )


def _number(of: Any) -> int:
    """A seed that looks random, the same for the same values."""
    return int.from_bytes(hashlib.sha256(digest(of).encode()).digest()[:6], "big")
