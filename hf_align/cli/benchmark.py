"""`hf-align benchmark` in the table of commands."""

import argparse

from hf_align.cli.command import Command


def benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align benchmark`."""
    parser.add_argument("--config", metavar="GRID.yaml", help="the grid")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="runs side by side, each a process; 0: one after another in this process (%(default)s)",
    )
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="check the grid wholly and list its runs, with rows, steps and memory, without training",
    )
    parser.add_argument(
        "--report-only",
        "--report_only",
        action="store_true",
        help="write table and page of what is finished, without running anything",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE; - prints them instead of the lines")


BENCHMARK = Command(
    "benchmark",
    "compare algorithms on data sets with seeds under one budget, by an independent judge",
    """Trains every algorithm of a grid on every data set with every seed under the same budget, each run in a process
of its own, and lets all policies answer the same held-out prompts with the same random numbers. Judge, reward, KL
from the base, length, time and memory are written as runs finish.

A grid is a YAML file of `key: value` lines; a flag of the same name overrides it. Keys:
  model         Hub id or folder that everything starts from (required)
  judge         independent of the training: vader, a reward model, FILE.py:FUNCTION, a language model, or a mapping
                (required)
  prompts       held-out prompts: a data source, embedded, or {data: ..., limit: ...} (required)
  budget        one or several of {samples, steps, seconds, kl}, of which the first that is reached ends a training;
                passes, kl_every, kl_prompts (required)
  datasets      by name {pairs, prompts, limit, flip, reward, budget}: flip is the share of pairs whose labels are
                exchanged; reward a reward model, or options to train one on the pairs (required)
  algorithms    by label its options, and algorithm (default: the label; of the registry, hybrid or best-of-n), seeds,
                datasets (required)
  seeds         a number or a list
  options       options of all algorithms that have them
  lora, quantization
  output_dir    folder of everything (required)
  anything else a field of BenchmarkConfig: max_new_tokens, eval_batch_size, keep

The same command goes on after Ctrl-C or a crash, and tries failed runs again; seeds, algorithms and data sets may be
added. Exit status 1 if a run failed.
""",
    """  hf-align benchmark --config recipes/benchmark-embedded.yaml --dry-run
  hf-align benchmark --config recipes/benchmark-embedded.yaml --workers 4
  hf-align benchmark --config recipes/benchmark-embedded.yaml --model out/base --datasets.clean.reward out/reward
  hf-align benchmark --config recipes/smoke-benchmark.yaml --budget.samples 64 --seeds 2
  hf-align benchmark --config recipes/benchmark-embedded.yaml --report-only --json figures.json
""",
    "hf_align.cli.commands.benchmark:run_benchmark_command",
    benchmark_arguments,
    takes_fields=True,
    usage="hf-align benchmark [--config GRID.yaml] [--FIELD VALUE ...] [--workers N] [--dry-run | --report-only]",
    one_process=True,
)
