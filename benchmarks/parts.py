"""`python -m benchmarks parts`: time and memory of each attention, layout and patch of a model, and of our sampling.

A random Llama under LoRA in bfloat16, on CUDA if there is a GPU. A pass is forward and backward of the log-probs of a
batch; its memory is the peak above the bytes held before it.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import accelerate
import peft
import torch
import transformers
from peft import LoraConfig, TaskType
from transformers import AutoModelForCausalLM, LlamaConfig

import hf_align
from benchmarks.commands import say, shown_command
from benchmarks.gpu import HEADS, KV_HEADS, SIZES
from benchmarks.machine import commit, describe_machine
from benchmarks.results import write_result
from benchmarks.session import EXIT_OK
from hf_align.acceleration.lora import fuse_lora
from hf_align.acceleration.mlp import keep_less_of_mlps
from hf_align.acceleration.norms import keep_less_of_norms
from hf_align.acceleration.recompute import enable_selective_recompute
from hf_align.acceleration.registry import NAMES, Choice, Setting, accelerated
from hf_align.layout.branches import Branches, build_branches
from hf_align.models.adapters import add_lora
from hf_align.models.attention_choice import set_attention
from hf_align.models.policy import PolicyModel
from hf_align.models.wrapper import FLEX, unwrapped
from hf_align.rollouts.engine import SamplingRequest, pad_left
from hf_align.rollouts.static import generation_config, plain_generation, static_engine


@dataclass(frozen=True)
class Shape:
    """A batch: documents with a prompt and responses of these mean lengths in tokens."""

    documents: int
    prompt: int
    responses: int
    response: int
    row_tokens: int | None = None


REAL_SHAPES = {
    "chat": Shape(32, 143, 2, 65),
    "summary": Shape(32, 286, 2, 36),
    "long": Shape(8, 1024, 2, 512),
    "eight responses": Shape(8, 512, 8, 128),
    "chat, packed": Shape(32, 143, 2, 65, row_tokens=2048),
}
SHAPES = {"toy": {"chat": Shape(1, 20, 2, 10)}, "1b": REAL_SHAPES, "8b": REAL_SHAPES}
SAMPLED = {"toy": (4, 8, 8), "1b": (32, 64, 64), "8b": (32, 64, 64)}
"""Prompts, tokens per prompt, and new tokens."""
WARMUP = 2


def run(options: argparse.Namespace) -> int:
    """Measure every part, and save after each, since a GPU may be available for minutes only."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    file = f"parts-{options.size}-{device}"
    result: dict[str, Any] = {
        "command": shown_command(options.given),
        "commit": commit(),
        "machine": describe_machine(),
        "versions": {
            "hf_align": hf_align.__version__,
            **{module.__name__: module.__version__ for module in (torch, transformers, peft, accelerate)},
        },
        "settings": {"size": options.size, "repeats": options.repeats, "warmup": WARMUP, "dtype": "bf16"},
    }
    for part, measure in (("attention", attention), ("patches", patches), ("sampling", sampling)):
        result[part] = {}
        for name, figures in measure(options.size, options.repeats, device):
            result[part][name] = figures
            say(f"{part}, {name}: " + ", ".join(f"{key} {shown(value)}" for key, value in figures.items()))
            write_result(Path(options.out), file, result)
        _release()
    say(f"  -> {Path(options.out) / file}.json")
    return EXIT_OK


def shown(value: Any) -> str:
    """Format a figure."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


Figures = Iterator[tuple[str, dict[str, Any]]]


def attention(size: str, repeats: int, device: str) -> Figures:
    """Measure every shape in plain rows and in branches: under a dense mask with and without cuDNN, and FlexAttention.

    Then rows of a new width in each pass, as in training, for the cost of kernels that are built per shape.
    """
    model = policy(size, device)
    fuse_lora(model)
    for name, shape in SHAPES[size].items():
        branches = batch(shape).to(torch.device(device))
        for way, implementation, separate in _ways(device):
            with _way(model, implementation):
                yield f"{name}: {way}", _pass_figures(model, branches.as_separate() if separate else branches, repeats)
    for way, implementation, _ in _ways(device):
        with _way(model, implementation):
            yield f"new widths: {way}", _new_widths(model, size, device, repeats)


def _ways(device: str) -> list[tuple[str, str, bool]]:
    """Name, implementation and whether rows are plain. Torch has a backward pass for FlexAttention only on GPUs."""
    ways = [("branch, sdpa", "sdpa", False), ("separate, sdpa", "sdpa", True)]
    if device == "cuda":
        ways += [("branch, sdpa without cuDNN", WITHOUT_CUDNN, False), ("branch, flex_attention", FLEX, False)]
    return ways


WITHOUT_CUDNN = "sdpa without cuDNN"


@contextmanager
def _way(model: PolicyModel, implementation: str) -> Iterator[None]:
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(cudnn and implementation != WITHOUT_CUDNN)
    set_attention(model, FLEX if implementation == FLEX else "sdpa")
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        set_attention(model, "sdpa")


def _new_widths(model: PolicyModel, size: str, device: str, repeats: int) -> dict[str, Any]:
    """The median pass over chat batches, each wider than all before."""
    shape, seconds = SHAPES[size]["chat"], []
    for number in range(repeats + 1):
        wider = replace(shape, prompt=shape.prompt + 9 * (number + 1))
        laid_out = batch(wider).to(torch.device(device))
        figures = _pass_figures(model, laid_out, 0, warmup=1)
        if "failed" in figures:
            return figures
        seconds.append(figures["first"])
    return {"seconds": statistics.median(seconds[1:]), "all": seconds}


PATCHES: dict[str, Callable[[Any], object]] = {
    "none": lambda model: None,
    "+ lora": fuse_lora,
    "+ mlp": keep_less_of_mlps,
    "+ norms": keep_less_of_norms,
    "+ selective recompute": enable_selective_recompute,
}
"""Patches, each added to the previous ones."""


def patches(size: str, repeats: int, device: str) -> Figures:
    """Measure the chat batch with each patch of a model's layers, under LoRA and with all weights in float32."""
    branches = batch(SHAPES[size]["chat"]).to(torch.device(device))
    for kind in ("lora", "full"):
        model = policy(size, device, full=kind == "full")
        for name, apply in PATCHES.items():
            apply(model)
            yield f"{kind}: {name}", _pass_figures(model, branches, repeats)
        del model
        _release()
        model = policy(size, device, full=kind == "full")
        cast(Any, model.model).activation_checkpointing_enable()
        yield f"{kind}: none, full checkpointing", _pass_figures(model, branches, repeats)
        del model
        _release()


def sampling(size: str, repeats: int, device: str) -> Figures:
    """Measure our engine, with and without patches, and transformers' `generate`; bfloat16 and float32 bases."""
    count, length, new = SAMPLED[size]
    rng = random.Random(0)
    prompts = [[rng.randrange(10, 1000) for _ in range(length - n % 8)] for n in range(count)]
    request = SamplingRequest(
        prompt_ids=prompts,
        num_samples=1,
        max_new_tokens=new,
        temperature=1.0,
        top_p=1.0,
        end_ids=[],
        stop_strings=(),
        pad_token_id=0,
        tokenizer=None,  # type: ignore[arg-type]  # asked only about stop strings
        batch_size=None,
    )

    but = {f"without {left}": (static_engine, [name for name in NAMES if name != left]) for left in ("lora", "casts")}
    ways: dict[str, tuple[Any, Choice]] = {"ours": (static_engine, "auto"), "generate": (_generate, "none"), **but}
    for dtype in (torch.bfloat16, torch.float32):
        model = policy(size, device, dtype=dtype).eval()
        for way, (engine, choice) in ways.items():
            seconds = []
            for _ in range(2):
                chosen = accelerated(model, Setting.of(model, "sample"), choice)
                with chosen, _autocast(device), torch.no_grad():
                    _synchronize()
                    start = time.perf_counter()
                    engine(model, request)
                    _synchronize()
                    seconds.append(time.perf_counter() - start)
            figures = {"seconds": min(seconds), "tokens_per_second": count * new / min(seconds), "all": seconds}
            yield f"{str(dtype).removeprefix('torch.')} base: {way}", figures
        del model
        _release()


def policy(size: str, device: str, *, full: bool = False, dtype: torch.dtype = torch.bfloat16) -> PolicyModel:
    """A random Llama, frozen under a random adapter or fully trained in float32."""
    config = LlamaConfig(
        **SIZES[size],
        num_attention_heads=HEADS[size],
        num_key_value_heads=KV_HEADS[size],
        max_position_embeddings=8192,
        tie_word_embeddings=size != "8b",
    )
    torch.manual_seed(0)
    dtype = torch.float32 if full else dtype
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    if not full:
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
        model = add_lora(model, lora, TaskType.CAUSAL_LM)
    return PolicyModel(model).to(device).train()  # type: ignore[arg-type]


def batch(shape: Shape) -> Branches:
    """A batch of random tokens; lengths vary by up to a quarter around the shape's."""
    rng = random.Random(0)

    def ids(mean: int) -> list[int]:
        return [rng.randrange(10, 1000) for _ in range(rng.randint(mean * 3 // 4, mean * 5 // 4))]

    drawn = [(ids(shape.prompt), [ids(shape.response) for _ in range(shape.responses)]) for _ in range(shape.documents)]
    return build_branches(drawn, pad_token_id=0, row_tokens=shape.row_tokens)


def _pass_figures(model: PolicyModel, branches: Branches, repeats: int, warmup: int = WARMUP) -> dict[str, Any]:
    """Seconds of the first pass and of later ones (median, minimum), and bytes above those held between passes."""
    times, peak = [], 0
    try:
        for number in range(warmup + repeats):
            model.zero_grad(set_to_none=number == 0)  # later passes add to existing gradients
            _synchronize()
            held = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            with _autocast(branches.input_ids.device.type):
                logps = model(branches)
            logps.mean().backward()
            _synchronize()
            times.append(time.perf_counter() - start)
            peak = torch.cuda.max_memory_allocated() - held if torch.cuda.is_available() else 0
    except Exception as error:  # a kernel that doesn't compile, or too little memory: still measure the other parts
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    later = times[warmup:] or times
    return {
        "seconds": statistics.median(later),
        "least": min(later),
        "first": times[0],
        "bytes": peak,
        "rows": len(branches.input_ids),
        "width": branches.input_ids.shape[1],
    }


def _generate(model: PolicyModel, request: SamplingRequest) -> None:
    """Sample with transformers' `generate`."""
    inner = unwrapped(model)
    ids, mask = pad_left(request.prompt_ids, request.pad_token_id, inner.device)
    with plain_generation(inner):
        inner.generate(input_ids=ids, attention_mask=mask, generation_config=generation_config(request))


def _autocast(device: str) -> Any:
    return torch.autocast(device, torch.bfloat16)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
