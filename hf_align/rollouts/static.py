"""The static engine: a batch is decoded token by token until all of its responses have ended.

Unlike transformers' `generate` it encodes each prompt once for all its responses, drops responses that have ended from
the batch, and doesn't copy the whole cache for each token. Models with special generation (a state instead of a cache,
inputs that the model prepares itself) use `generate`, if that gives the logits of the text alone; otherwise each token
takes a pass over the whole text.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import logging

from hf_align.acceleration.registry import Setting, accelerated
from hf_align.models.adapters import evaluation_mode
from hf_align.models.wrapper import unwrapped
from hf_align.rollouts.engine import Ids, SamplingRequest, pad_left

logger = logging.get_logger(__name__)

ROOM = 32
"""Tokens added to the cache's capacity each time it is copied into a larger one."""
BLOCK = 256
"""Block size in which the vocabulary's probabilities are summed before a token is searched for."""
SHRINK = 0.75
"""Ended responses are dropped once at most this share of the batch's rows is still running."""
TRIED = 3
"""Tokens generated to test a model's own generation."""
_GENERATES: WeakKeyDictionary[nn.Module, tuple[int, bool]] = WeakKeyDictionary()
"""Longest text on which a model's own generation was tested, in tokens, and whether it worked."""


def static_engine(model: nn.Module, request: SamplingRequest) -> list[Ids]:
    """Generate batch by batch; an `Engine`.

    All random numbers are drawn at the start, one for each possible token. So a response depends on its prompt, the
    generator's state and its place in the request; not, except for rounding, on `batch_size`, the other prompts or the
    ends of other responses. (With models that use `generate`, it does.)
    """
    inner = unwrapped(model)
    prompt_of = request.prompt_of
    order = list(range(len(prompt_of)))
    if request.batch_size is not None:
        order.sort(key=lambda row: -len(request.prompt_ids[prompt_of[row]]))
    size = request.batch_size or len(order)
    draws = torch.rand(len(order), request.max_new_tokens, dtype=torch.float64)
    longest = max(len(prompt) for prompt in request.prompt_ids) + request.max_new_tokens
    decode = _decoder_of(inner, longest)
    responses: dict[int, Ids] = {}
    with accelerated(inner, Setting.of(inner, "sample")):
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = decode(inner, request, [prompt_of[row] for row in rows], draws[rows])
            responses.update(zip(rows, batch, strict=True))
    return [responses[row] for row in range(len(order))]


def _decoder_of(model: Any, longest: int) -> Callable[[Any, SamplingRequest, Sequence[int], Tensor], list[Ids]]:
    """Decoder of texts of up to `longest` tokens: the fastest that gives the logits of the text alone."""
    if decodes_stepwise(model):
        return _decode
    if generates_as_it_scores(model, longest):
        return _generate
    logger.warning_once(
        f"{type(model).__name__} gives different logits with its cache or padding than without: each sampled "
        "token takes a pass over the whole text, which is slower."
    )
    return _decode_uncached


def decodes_stepwise(model: Any) -> bool:
    """Whether a model decodes from ids, mask, positions and a cache whose rows can be selected."""
    usual: Any = GenerationMixin
    has_own_inputs = type(model).prepare_inputs_for_generation is not usual.prepare_inputs_for_generation
    positions = "position_ids" in inspect.signature(model.forward).parameters
    if has_own_inputs or not positions or not model._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=model.config).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


@torch.no_grad()
def generates_as_it_scores(model: Any, longest: int) -> bool:
    """Whether a model's own `generate` works and uses the logits that a pass over the text alone gives.

    Tested on two prompts of unequal length, again for a longer text: a model may lose its state between tokens, read
    padding as text, or cut off tokens outside its window.
    """
    tried, works = _GENERATES.get(model, (0, True))
    if works and longest > tried:
        with evaluation_mode(model), torch.autocast(model.device.type, enabled=False):
            works = _compare_generation(model, longest)
        _GENERATES[model] = longest, works
    return works


def _compare_generation(model: Any, longest: int) -> bool:
    longest = max(8, longest - TRIED)
    prompts = [[1 + (place * place // 3) % 2 for place in range(length)] for length in (longest, longest // 3)]
    ids, mask = pad_left(prompts, 0, model.device)
    settings = {"return_dict_in_generate": True, "output_logits": True, "pad_token_id": 0}
    config = GenerationConfig(max_new_tokens=TRIED, do_sample=False, use_cache=True, **settings)
    try:
        with plain_generation(model):
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return False
    generated = output.sequences[:, ids.shape[1] :]
    exact = model.dtype == torch.float32 and getattr(model, "quantization_method", None) is None
    tolerance = 1e-3 if exact else 0.1
    for row, prompt in enumerate(prompts):
        whole = torch.tensor([prompt + generated[row, :-1].tolist()], device=ids.device)
        expected = model(input_ids=whole).logits[0, len(prompt) - 1 :].float()
        found = torch.stack([logits[row] for logits in output.logits]).float()
        if not (found - expected).abs().max() <= tolerance * expected.std():
            return False
    return True


def _decode(model: Any, request: SamplingRequest, prompts: Sequence[int], draws: Tensor) -> list[Ids]:
    """Generate one response for each entry of `prompts`, which are indices of the request's prompts.

    Args:
        model: A model that `decodes_stepwise`.
        request: The request.
        prompts: Index of each response's prompt.
        draws: `[B, max_new_tokens]` uniform random numbers.
    """
    distinct = list(dict.fromkeys(prompts))
    ids, mask = pad_left([request.prompt_ids[prompt] for prompt in distinct], request.pad_token_id, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = next_logits(model, ids, mask, positions, cache)
    rows = torch.tensor([distinct.index(prompt) for prompt in prompts], device=model.device)
    logits, mask, positions = logits[rows], mask[rows], positions[rows, -1:]
    _select(cache, rows)
    responses: list[Ids] = [[] for _ in prompts]
    batch = list(range(len(prompts)))  # index of the response in each row of the batch
    running = set(batch)
    for step in range(request.max_new_tokens):
        tokens = next_tokens(logits, request, draws[batch, step])
        for response, token in zip(batch, tokens.tolist(), strict=True):
            if response in running:
                responses[response].append(token)
                if request.ends_with_last(responses[response]):
                    running.discard(response)
        if not running or step + 1 == request.max_new_tokens:
            break
        if len(running) <= SHRINK * len(batch):
            keep = [row for row, response in enumerate(batch) if response in running]
            batch = [batch[row] for row in keep]
            rows = torch.tensor(keep, device=model.device)
            tokens, mask, positions = tokens[rows], mask[rows], positions[rows]
            _select(cache, rows)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        positions = positions + 1
        logits = next_logits(model, tokens[:, None], mask, positions, cache)
    return responses


def next_logits(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """Float32 logits of the last column, `[B, vocab]`; the others aren't computed if the model allows it."""
    last = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
    return model(**inputs, use_cache=True, **last).logits[:, -1].float()


def next_tokens(logits: Tensor, request: SamplingRequest, draws: Tensor) -> Tensor:
    """Sample from softmax(logits / temperature) by inverting its distribution function.

    A row's token is the first at which the cumulative probability exceeds the draw.

    Args:
        logits: `[B, vocab]` float32.
        request: For temperature and top_p.
        draws: `[B]` float64, uniform in [0, 1).

    Returns:
        `[B]` int64.
    """
    if request.temperature == 0:
        return logits.argmax(-1)
    probs = (logits / request.temperature).softmax(-1)
    order = None
    if request.top_p < 1:
        probs, order = probs.sort(descending=True, stable=True)
        # A token stays if the more likely ones sum to less than top_p; so the most likely one always stays.
        probs = probs.masked_fill(probs.cumsum(-1) - probs >= request.top_p, 0.0)
    device = torch.device("cpu") if probs.device.type == "mps" else probs.device  # Apple GPUs have no float64
    places = _invert(probs.to(device), draws.to(device)).to(probs.device)
    return places if order is None else order.gather(-1, places[:, None])[:, 0]


def _invert(probs: Tensor, draws: Tensor) -> Tensor:
    """The first token at which the running sum of `probs` `[B, vocab]` exceeds `draws` times the whole sum: `[B]`.

    Sums are float64, so that the tail of a large vocabulary keeps its share; a token of probability 0 is never chosen.
    The block of tokens is found first, then the token in it: running sums over all tokens would take longer than the LM
    head.
    """
    blocks = nn.functional.pad(probs, (0, -probs.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    sums = blocks.sum(-1, dtype=torch.float64)
    upto = sums.cumsum(-1)
    goal = draws[:, None] * upto[:, -1:]
    block = torch.searchsorted(upto, goal, right=True).clamp_(max=sums.shape[1] - 1)
    rest = goal - (upto - sums).gather(1, block)
    within = blocks[torch.arange(len(blocks), device=block.device), block[:, 0]].double().cumsum(-1)
    place = torch.searchsorted(within, rest, right=True)
    # With different rounding a block's sum may not exceed the rest: then take its last token with a probability.
    last = (within < within[:, -1:]).sum(1, keepdim=True)
    return (block * BLOCK + torch.minimum(place, last))[:, 0]


def full_layers(cache: DynamicCache, config: Any, rows: int, tokens: int, dtype: torch.dtype) -> None:
    """Give a cache so many tokens without room for another, as it is before it is copied into larger tensors.

    Args:
        cache: The cache, changed in place.
        config: The language model's config.
        rows: Responses.
        tokens: Tokens of each.
        dtype: Dtype of keys and values.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for number in range(config.num_hidden_layers):
        keys, values = (torch.empty(rows, heads, tokens, size, dtype=dtype) for _ in range(2))
        layer = _RoomyLayer(keys[:, :, :0], values[:, :, :0])
        layer.keys, layer.values = keys, values
        cache.layers[number] = layer


class _RoomyLayer(DynamicLayer):
    """One layer's keys and values, as views of larger tensors with room for the next tokens.

    transformers' layer is copied as a whole for each token.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = _with_room(keys), _with_room(values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.values is not None
        self.keys, self.values = _append(self.keys, key_states), _append(self.values, value_states)
        return self.keys, self.values


def _with_room(states: Tensor) -> Tensor:
    """A copy of `[B, heads, T, d]` at the start of a larger tensor."""
    rows, heads, length, size = states.shape
    whole = states.new_empty(rows, heads, length + ROOM, size)
    whole[:, :, :length] = states
    return whole[:, :, :length]


def _append(states: Tensor, new: Tensor) -> Tensor:
    """Append `new` to `states`, in place if its tensor has room."""
    length = states.shape[2] + new.shape[2]
    if length * states.shape[3] > states.stride(1):
        states = _with_room(states)
    longer = states.as_strided((*states.shape[:2], length, states.shape[3]), states.stride())
    longer[:, :, states.shape[2] :] = new
    return longer


def _select(cache: DynamicCache, rows: Tensor) -> None:
    """Select rows of the cache in this order; rows may be repeated or left out."""
    for number, layer in enumerate(cast(list[DynamicLayer], cache.layers)):
        if not layer.is_initialized:
            continue  # a layer that shares another one's keys and values
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.batch_select_indices(rows)
        else:
            assert layer.keys is not None and layer.values is not None
            cache.layers[number] = _RoomyLayer(layer.keys[rows], layer.values[rows])


def _decode_uncached(model: Any, request: SamplingRequest, prompts: Sequence[int], draws: Tensor) -> list[Ids]:
    """Decode without a cache, for any decoder, with padding on the right, where no real token sees it."""
    responses: list[Ids] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    for step in range(request.max_new_tokens):
        rows = [[*request.prompt_ids[prompts[response]], *responses[response]] for response in running]
        ends = torch.tensor([len(row) for row in rows], device=model.device)
        columns = torch.arange(int(ends.max()), device=model.device)
        ids = torch.full((len(rows), len(columns)), request.pad_token_id, device=model.device)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.as_tensor(row)
        mask = (columns < ends[:, None]).long()
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[range(len(rows)), ends - 1].float()
        for response, token in zip(running, next_tokens(logits, request, draws[running, step]).tolist(), strict=True):
            responses[response].append(token)
        running = [response for response in running if not request.ends_with_last(responses[response])]
        if not running:
            break
    return responses


def _generate(model: Any, request: SamplingRequest, prompts: Sequence[int], draws: Tensor) -> list[Ids]:
    """Generate with transformers' `generate`, which draws its own random numbers."""
    ids, mask = pad_left([request.prompt_ids[prompt] for prompt in prompts], request.pad_token_id, model.device)
    config = generation_config(request)
    config.remove_invalid_values = True  # a policy that became NaN is found by its log-probs, on all processes
    stops = [_StopStrings(request, ids.shape[1])] if request.stop_strings else []
    with plain_generation(model):
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList(stops),
        )
    return output[:, ids.shape[1] :].tolist()


class _StopStrings(StoppingCriteria):
    """Criterion that ends a row at the token that completes a stop string."""

    def __init__(self, request: SamplingRequest, prompt_width: int):
        self.request, self.prompt_width = request, prompt_width

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows = input_ids[:, self.prompt_width :].tolist()
        done = [self.request.completed_string(row) is not None for row in rows]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)


def generation_config(request: SamplingRequest) -> GenerationConfig:
    """The request as a `GenerationConfig`."""
    settings: dict[str, Any] = {
        "max_new_tokens": request.max_new_tokens,
        "pad_token_id": request.pad_token_id,
        "use_cache": True,
    }
    if request.end_ids:
        settings["eos_token_id"] = list(request.end_ids)
    if request.temperature == 0:
        return GenerationConfig(do_sample=False, **settings)
    # top_k must be set: transformers' default is 50.
    return GenerationConfig(do_sample=True, temperature=request.temperature, top_p=request.top_p, top_k=0, **settings)


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Remove the model's generation config inside this context: `generate` fills unset values from it."""
    configured = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = configured
