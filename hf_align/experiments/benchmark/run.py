"""A benchmark from its grid to its results: `run_benchmark`, the library's side of `hf-align benchmark`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from hf_align.errors import UserError
from hf_align.evaluation.grid import BASE, RESULT, Results, read_results
from hf_align.experiments.benchmark.engine import Engine
from hf_align.experiments.benchmark.planned import Benchmark
from hf_align.experiments.benchmark.prepare import prepare_benchmark
from hf_align.experiments.benchmark.training import TRAINING
from hf_align.experiments.recipe import Recipe, read_recipe
from hf_align.progress import Progress, Silent


def run_benchmark(
    config: str | os.PathLike[str] | Mapping[str, Any], *, workers: int = 1, progress: Progress | None = None
) -> Results:
    """Train every algorithm of a grid on every data set with every seed under one budget, and measure all alike.

    Each run is a process of its own. What is finished isn't done again, and what was stopped goes on from its last
    checkpoint: the same call continues a stopped benchmark, also with further seeds, algorithms or data sets. A run
    that fails doesn't stop the others.

    Args:
        config: The grid: a YAML file, or a mapping; docs/how-to/benchmark.md has its keys.
        workers: Runs side by side. 0: one after another in this process, whose peak memory is then all runs'.
        progress: Receiver of progress. Default: none.

    Returns:
        The finished runs, which the folder holds, too.

    Raises:
        UserError: The grid can't be used, its folder holds runs with other settings (nothing is trained then), or no
            run finished.
        KeyboardInterrupt: After Ctrl-C; checkpoints are saved first.

    Example:
        >>> from hf_align.experiments import run_benchmark
        >>> results = run_benchmark("recipes/smoke-benchmark.yaml", workers=2)  # doctest: +SKIP
    """
    recipe = Recipe(dict(config)) if isinstance(config, Mapping) else read_recipe(os.fspath(config), [])
    results, failures = execute_benchmark(prepare_benchmark(recipe), workers, progress or Silent())
    if results is None:
        place, reason = next(iter(failures.items()))
        raise UserError(f"no run of an algorithm finished; {place}: {reason}")
    return results


def execute_benchmark(benchmark: Benchmark, workers: int, progress: Progress) -> tuple[Results | None, dict[str, str]]:
    """Do the runs of a checked grid that aren't finished, and compare all that are; see `run_benchmark`.

    Returns:
        The finished runs, None if there are none, and what ended the others, by their place in the folder.
    """
    failures = do_runs(benchmark, workers, progress)
    return read_benchmark(benchmark), failures


def do_runs(benchmark: Benchmark, workers: int, progress: Progress) -> dict[str, str]:
    """Do the runs of a checked grid that aren't finished.

    Returns:
        What ended those that failed, by their place in the folder.
    """
    if workers < 0:
        raise UserError(f"workers is {workers}; give a number of processes, or 0 for none")
    with benchmark.locked():
        benchmark.check_folder()
        benchmark.store()
        keep = benchmark.grid.config.keep
        engine = Engine(benchmark.jobs, benchmark.out, workers, keep, progress)
        engine.run()
        if not keep:  # of a run that was killed after its result was written
            for job in benchmark.jobs:
                if job.is_finished(benchmark.out):
                    shutil.rmtree(job.folder(benchmark.out) / TRAINING, ignore_errors=True)
    return engine.failures


def read_benchmark(benchmark: Benchmark) -> Results | None:
    """The finished runs of a grid, written to its folder as figures, tables, page and picture; None without any."""
    out = benchmark.out
    finished = [
        (dataset, label, seed)
        for dataset, label, seed in benchmark.cells
        if (out / dataset / label / str(seed) / RESULT).exists() and (out / BASE / str(seed) / RESULT).exists()
    ]
    if not finished:
        return None
    results = read_results(out, benchmark.described(), benchmark.cells)
    results.write(out)
    return results
