"""Entry point of `python -m benchmarks`: arguments, exit codes and error messages.

Nothing heavy is imported here, so that `--help` and flag errors are immediate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from hf_align.errors import UserError

EXIT_OK, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130
WORKLOAD_NAMES = ("chat", "summary", "long")
GPU_TASKS = ("dpo", "reward", "ppo", "quantized")
EXAMPLES = """examples:
  python -m benchmarks dpo --peer trl                              both sides, two runs each
  python -m benchmarks dpo --peer trl --workload long --dtype bf16
  python -m benchmarks dpo --peer trl --full --checkpointing       all weights, full gradient checkpointing
  python -m benchmarks reward --peer trl --runs 5
  python -m benchmarks ppo --peer trl --dtype bf16
  python -m benchmarks ppo --recompute --profile our side alone, with a profile python -m benchmarks memory --peer trl
  all ways of keeping activations, compared python -m benchmarks scaling growth with tokens, vocabulary, K and samples
  python -m benchmarks gpu --sizes 1b --tasks dpo ppo --peer trl a CUDA GPU; --sizes toy also runs on a CPU python -m
  benchmarks parts --size 1b attention, layouts, patches, sampling python -m benchmarks table write the table from the
  JSON files again
"""
SUMMARIES = {
    "dpo": "DPO steps against TRL 1.16.0",
    "reward": "reward-model steps against TRL 1.16.0",
    "ppo": "PPO rollouts with their updates against TRL 1.12.0, the last version that has PPO",
    "memory": "DPO with activations kept, recomputed selectively and checkpointed",
    "scaling": "growth of our time and memory with tokens, vocabulary, branches and samples",
    "gpu": "DPO, reward models and PPO on random Llamas on CUDA, PPO on quantised ones in capped memory",
    "parts": "each attention, layout and patch of a model, and our sampling, one by one",
    "table": "write the table of all results",
}
RUN = {
    **dict.fromkeys(("dpo", "reward", "ppo"), "commands:run_task"),
    "memory": "commands:run_memory",
    "scaling": "scaling:run",
    "gpu": "gpu:run",
    "parts": "parts:run",
    "table": "commands:run_table",
}
"""Module and function of each command."""


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = _Parser(
        prog="python -m benchmarks",
        description="Speed and memory of hf_align and its peers: the same data, model, dtype and hyper-parameters,\n"
        "each run in a separate process. Results go to JSON files and a table.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in SUMMARIES.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_places(command)
        if name in ("dpo", "reward", "ppo", "memory", "gpu"):
            _add_runs(command)
        if name in ("dpo", "reward", "memory"):
            command.add_argument("--workload", choices=WORKLOAD_NAMES, default="chat", help="lengths (%(default)s)")
            command.add_argument("--batch", type=positive, default=4, help="pairs per step (%(default)s)")
        if name in ("dpo", "reward", "ppo"):
            command.add_argument("--full", action="store_true", help="train all weights instead of LoRA r=16")
            memory = command.add_mutually_exclusive_group()
            memory.add_argument(
                "--checkpointing", action="store_true", help="full gradient checkpointing on both sides"
            )
            memory.add_argument("--recompute", action="store_true", help="our selective recomputation of activations")
            command.add_argument("--profile", action="store_true", help="profile one more step of ours")
        if name == "ppo":
            command.add_argument("--batch", type=positive, default=16, help="prompts per rollout (%(default)s)")
            command.add_argument("--new-tokens", type=positive, default=24, help="tokens of a response (%(default)s)")
            command.add_argument("--epochs", type=positive, default=4, help="PPO epochs (%(default)s)")
        if name == "scaling":
            command.add_argument("--model", metavar="ID", help="model of the PPO curve (default: the embedded model)")
            command.add_argument(
                "--images", default="docs/images/benchmarks", metavar="DIR", help="folder of the plot (%(default)s)"
            )
        if name == "parts":
            command.add_argument("--size", choices=("toy", "1b", "8b"), default="1b", help="model (%(default)s)")
            command.add_argument("--repeats", type=positive, default=5, help="timed passes of each (%(default)s)")
        if name == "gpu":
            command.set_defaults(dtype="bf16")
            command.add_argument(
                "--sizes", nargs="+", choices=("toy", "1b", "8b"), default=["1b", "8b"], help="models (1b 8b)"
            )
            command.add_argument(
                "--tasks", nargs="+", choices=GPU_TASKS, default=[*GPU_TASKS], help=f"({' '.join(GPU_TASKS)})"
            )
            command.add_argument("--workload", choices=WORKLOAD_NAMES, default="chat", help="lengths (%(default)s)")
            command.add_argument("--batch", type=positive, default=16, help="pairs or prompts per step (%(default)s)")
    return parser


def _add_places(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out", default="benchmarks/results", metavar="DIR", help="folder of the results (%(default)s)"
    )
    command.add_argument(
        "--work", default=".benchmarks", metavar="DIR", help="folder for peers, models and logs (%(default)s)"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of data, weights and sampling (%(default)s)")


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="ID", help="Hub id or folder (default: the embedded SmolLM2-135M-Instruct)")
    command.add_argument("--peer", choices=("trl",), help="library to compare with (default: none)")
    command.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="compute dtype (%(default)s)")
    command.add_argument("--runs", type=positive, default=2, help="pairs of runs (%(default)s)")
    command.add_argument("--add", action="store_true", help="add these runs to those of an earlier result")
    command.add_argument("--steps", type=positive, default=2, help="timed steps of a run (%(default)s)")
    command.add_argument("--warmup", type=positive, default=1, help="untimed steps before them (%(default)s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; default `sys.argv[1:]`.

    Returns:
        0 for success, 2 for bad input, 1 if a run failed or the sides computed different things (explained in one line
        on stderr), 130 after Ctrl-C.
    """
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        options = build_parser().parse_args(given)
        options.given = given
        if not Path(options.out).parent.is_dir():
            raise UserError(f"--out: {Path(options.out).parent} is not a folder")
        module, _, function = RUN[options.command].partition(":")
        return getattr(import_module(f"benchmarks.{module}"), function)(options)
    except SystemExit as stop:  # argparse after --help
        return int(stop.code or EXIT_OK)
    except UserError as error:
        print(f"benchmarks: error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; finished results are kept.", file=sys.stderr)
        return EXIT_INTERRUPTED
