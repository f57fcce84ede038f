"""Commands about runs: planned, chosen, compared and listed."""

import argparse

from hf_align.cli.command import Command
from hf_align.cli.flags import add_dry_run, add_json
from hf_align.planning.selection.needs import NEEDS


def plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align plan`."""
    parser.add_argument("--config", metavar="RECIPE.yaml", help="a recipe, whose keys count as flags")
    parser.add_argument("--algorithm", required=True, metavar="NAME", help="name of a training command: dpo, ppo, ...")
    parser.add_argument(
        "--gpu", metavar="GPU", help="name of a GPU, such as h100, or its memory, 24GB (default: this machine's device)"
    )
    parser.add_argument("--hours", type=float, metavar="H", help="say whether the run ends within so many hours")
    parser.add_argument("--largest-batch", action="store_true", help="find the largest micro-batch that fits, too")
    parser.add_argument("--recipe", metavar="FILE", help="write a recipe that fits to FILE (YAML)")
    add_json(parser)


PLAN = Command(
    "plan",
    "say what memory, time and disk a run takes, and what fits a GPU",
    """Plans a run from the model's config alone, without weights, GPU or network: memory at its peak by purpose,
whether it fits, and if not, the cheapest changes with which it does: short rows packed together, a smaller micro-batch,
recomputation, LoRA, 8 or 4 bits. And the time of a step by part, of the run where its steps are known, and the disk.

  --model         Hub id in the cache, folder, or config.json (required)
  --algorithm     name of a training command (required)
  --gpu           name of a GPU or its memory; without it this machine's GPU or CPU with what is free now, whose speed
                  is measured for up to five seconds
  anything else   a key of the algorithm's recipe: lora, quantization, max_length, per_device_train_batch_size, ...

With --train_dataset the longest rows of the data decide, without it the longest that the options allow.
""",
    """  hf-align plan --model config.json --algorithm dpo --gpu 24GB --lora true
  hf-align plan --model ORG/MODEL --algorithm ppo --gpu 80GB --lora true --reward ORG/REWARD --max_new_tokens 256
  hf-align plan --config recipes/dpo.yaml --algorithm dpo --gpu l4 --hours 8 --recipe fits.yaml
  hf-align plan --model ORG/MODEL --algorithm reward --gpu 40GB --quantization 4bit --lora.r 32 --json -
""",
    "hf_align.cli.commands.plan:run_plan",
    plan_arguments,
    takes_fields=True,
    usage="hf-align plan --model MODEL --algorithm NAME [--gpu SIZE] [--config RECIPE.yaml] [--FIELD VALUE ...]",
)


def select_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align select`."""
    parser.add_argument(
        "--data", required=True, metavar="DATASET", help="Hub id, folder, file of any kind, or embedded:ratings"
    )
    parser.add_argument("--model", required=True, metavar="ID", help="the policy: Hub id, folder or adapter")
    parser.add_argument("--split", metavar="NAME", help="split to read (default: train, else the first that exists)")
    parser.add_argument("--gpu", metavar="SIZE", help="memory of one GPU, such as 24GB (default: what is free here)")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="number of GPUs (default: 1)")
    parser.add_argument("--hours", type=float, metavar="H", help="hours of training at most (default: any)")
    parser.add_argument("--budget", type=float, metavar="MONEY", help="money at most; needs --price")
    parser.add_argument("--price", type=float, metavar="MONEY", help="money an hour of one GPU")
    parser.add_argument(
        "--speed",
        type=float,
        metavar="TFLOPS",
        help="10^12 operations a second that training reaches on one device (default: this CPU's, of a GPU 40)",
    )
    parser.add_argument(
        "--need", action="extend", nargs="+", metavar="NAME", help=f"what matters besides: {', '.join(NEEDS)}"
    )
    parser.add_argument("--reward", metavar="MODEL", help="the reward, if any: folder, Hub id or FILE.py:FUNCTION")
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="a table of rules (YAML) in place of the default one, or FILE.py:FUNCTION, features to scores",
    )
    parser.add_argument("--recipe", metavar="FILE", help="write the first choice to FILE as a recipe that fits (YAML)")
    add_json(parser, instead_of="text")


SELECT = Command(
    "select",
    "recommend an algorithm for data, a model, resources and needs",
    f"""Scores every algorithm that trains a policy, and best-of-n, by the data (pairs, agreement, margins, prompts,
lengths), the model, the memory and time that an estimate gives, and your needs. Prints the first with reasons, each
with its source, advantages and drawbacks, options to begin with, and the runner-up with when to take it; --recipe FILE
writes the first as a recipe, planned with these options and changed where it doesn't fit. Trains nothing, loads no
weights. The rules are one table, with a source each; --rules takes yours. They are tested on ten
cells of one small benchmark alone: read the choice as advice.

needs (--need, several at once or repeated):
{chr(10).join(f"  {name:<16} {text}" for name, text in NEEDS.items())}
""",
    """  hf-align select --data pairs.jsonl --model ORG/MODEL --gpu 24GB
  hf-align select --data pairs.jsonl --model ORG/MODEL --gpu 24GB --hours 24 --need robust_to_noise simple
  hf-align select --data pairs.jsonl --model ORG/MODEL --gpu 24GB --recipe first.yaml
  hf-align select --data pairs.jsonl --model ORG/MODEL --gpu 80GB --reward ./out/reward
  hf-align select --data ORG/DATA --model ORG/MODEL --gpu 24GB --gpus 2 --budget 50 --price 1.5 --speed 60
  hf-align select --data embedded:ratings --model ./hf-align-quickstart/base --json choice.json
  hf-align select --data pairs.jsonl --model ORG/MODEL --rules mine.yaml
""",
    "hf_align.cli.commands.select:run_select",
    select_arguments,
)


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
    add_dry_run(parser, "check the grid wholly and list its runs, with rows, steps and memory, without training")
    parser.add_argument(
        "--report-only",
        "--report_only",
        action="store_true",
        help="write table and page of what is finished, without running anything",
    )
    add_json(parser)


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


def runs_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align runs`."""
    parser.add_argument(
        "folders", metavar="DIR", nargs="*", default=["."], help="folders to search, with all below (default: .)"
    )
    parser.add_argument(
        "--metric", metavar="NAME", action="append", help="a metric to show in place of the default; may be repeated"
    )
    parser.add_argument("--algorithm", metavar="NAME", help="only runs of this algorithm")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--compare", action="store_true", help="show what the runs differ in, and their metrics")
    instead.add_argument("--json", action="store_true", help="print all facts of the runs as a JSON list")
    parser.add_argument("--report", metavar="FILE", help="write a page with the runs' curves on common charts (.html)")


RUNS = Command(
    "runs",
    "list, compare and plot the runs recorded in folders",
    "Every training records itself in run.sqlite in its output folder, whatever report_to is: options, data, base,\n"
    "versions, metrics and checkpoints. This lists the records in and below DIR by their start, each with its best\n"
    "result. A training that is running can be looked at, too. Exit status 2 if there is no run.",
    """  hf-align runs
  hf-align runs out --metric eval_accuracy --metric eval_loss
  hf-align runs out/beta-0.1 out/beta-0.5 --compare
  hf-align runs out --algorithm dpo --report runs.html
  hf-align runs out --json
""",
    "hf_align.cli.commands.runs:show_runs",
    runs_arguments,
)
