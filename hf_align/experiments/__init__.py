"""Training runs from recipes, and runs that are made of several: quickstart, hybrids, self-improvement, benchmarks."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.experiments.benchmark.run import Results as Results, run_benchmark as run_benchmark

__getattr__, __dir__ = lazy_names("hf_align.experiments", {"benchmark.run": ("Results", "run_benchmark")})
__all__ = ["Results", "run_benchmark"]
