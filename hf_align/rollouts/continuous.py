"""The continuous engine: transformers' continuous batching over a paged cache.

A response that ends makes room for the next one at once: meant for many more responses than fit at a time, of very
different lengths, on a GPU with flash attention. It is tested on a CPU, where it works but has no advantage.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching.continuous_api import ContinuousBatchingManager

from hf_align.acceleration.registry import Setting, accelerated
from hf_align.errors import UserError
from hf_align.models.wrapper import forward_replaced, unwrapped
from hf_align.rollouts.engine import Ids, SamplingRequest
from hf_align.rollouts.static import generation_config, plain_generation

PAGE = 16
"""Tokens per page of the cache on a CPU."""


def continuous_engine(model: nn.Module, request: SamplingRequest) -> list[Ids]:
    """Generate with continuous batching; an `Engine`.

    `batch_size` is the maximum number of responses generated at a time. The same generator state gives the same
    responses if the requests are scheduled alike; they differ from those of the static engine. Stop strings are only
    searched for in complete responses, so a response that contains one early is still generated to its end.

    Raises:
        UserError: The model's attention can't be paged, or generation fails.
    """
    inner = unwrapped(model)
    _check(inner)
    seed = int(torch.randint(2**31, ()))
    devices = [inner.device] if inner.device.type == "cuda" else []
    config = generation_config(request)
    config.eos_token_id = list(request.end_ids) or -1
    patches = accelerated(inner, Setting.of(inner, "sample"))
    with plain_generation(inner), patches, _same_autocast(inner), torch.random.fork_rng(devices):
        try:
            manager = inner.init_continuous_batching(config, _settings(inner, request, seed))
        except ValueError as error:  # an attention implementation or kind of layer without paging
            raise UserError(
                f"The continuous engine can't run {type(inner).__name__} ({error}); use the engine 'static'."
            ) from error
        try:
            # One request per response: transformers' copies of a request share its first token. All are added before
            # generation starts, or timing would decide which ones are computed together.
            names = manager.add_requests(
                [list(request.prompt_ids[prompt]) for prompt in request.prompt_of],
                max_new_tokens=request.max_new_tokens,
            )
            manager.start()
            responses = _collect(manager, len(names))
        finally:
            manager.stop(block=True)
            manager.destroy()
    return [responses[name] for name in names]


def _collect(manager: ContinuousBatchingManager, count: int) -> dict[str, Ids]:
    responses: dict[str, Ids] = {}
    while len(responses) < count:
        result = manager.get_result(timeout=1)
        if result is None and not manager.is_running():
            raise UserError(
                f"The continuous engine stopped: {manager.background_thread_status.fatal_error}. "
                "Use the engine 'static'."
            )
        if result is not None and result.is_finished():
            if result.error is not None:
                raise UserError(f"The continuous engine failed: {result.error}. Use the engine 'static'.")
            responses[result.request_id] = list(result.generated_tokens)
    return responses


def _check(model: Any) -> None:
    name, kind = type(model).__name__, model.device.type
    if not hasattr(model, "init_continuous_batching"):
        raise UserError(f"{name} has no continuous batching; use the engine 'static'.")
    if torch.is_autocast_enabled(kind) and model.dtype != torch.get_autocast_dtype(kind):
        raise UserError(
            f"The continuous engine keeps its cache in the model's {model.dtype}, but autocast computes in "
            f"{torch.get_autocast_dtype(kind)}; load the model in that dtype, or use the engine 'static'."
        )


def _settings(model: Any, request: SamplingRequest, seed: int) -> ContinuousBatchingConfig:
    settings: dict[str, Any] = {"seed": seed, "max_requests_per_batch": request.batch_size}
    if model.device.type == "cpu":
        # By default transformers takes 60% of the machine's memory for the cache.
        longest = max(len(prompt) for prompt in request.prompt_ids) + request.max_new_tokens
        rows = request.batch_size or len(request.prompt_of)
        settings |= {"page_size": PAGE, "num_blocks": rows * -(-longest // PAGE) + 1, "auto_switch_to_flash": False}
    return ContinuousBatchingConfig(**settings)


@contextmanager
def _same_autocast(model: Any) -> Iterator[None]:
    """Apply this thread's autocast to the model in every thread: the manager generates in a separate one."""
    kind = model.device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    original, dtype = model.forward, torch.get_autocast_dtype(kind)

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(kind, dtype):
            return original(*args, **kwargs)

    with forward_replaced(model, forward):
        yield
