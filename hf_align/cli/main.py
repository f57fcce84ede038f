"""Entry point of `hf-align`: arguments, exit codes and error messages.

Nothing heavy is imported here, so that `--help` and a wrong flag answer at once; a command imports torch when it runs.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from hf_align.errors import UserError

EXIT_OK, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 2, 130


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a sentence that says how to go on."""


class _Parser(argparse.ArgumentParser):
    """argparse with our one-line errors."""

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"argument COMMAND: invalid choice: '(\S+)' \(choose from (.*)\)", message)
        if unknown:
            commands = unknown[2].replace("'", "").split(", ")
            nearest = difflib.get_close_matches(unknown[1], commands, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(commands)}"
            message = f"there is no command {unknown[1]}; {hint}"
        raise UserError(message)


QUICKSTART_EXAMPLES = """examples:
  hf-align quickstart                              everything, in ./hf-align-quickstart
  hf-align quickstart --profile smoke --out try    the same path in two minutes, with results that mean little
  hf-align quickstart --quantization 4bit --out q  on a 4-bit base model
  hf-align quickstart --resume                     go on after Ctrl-C or a crash
"""

TRAIN_HELP = {
    "reward": "train a reward model on preference pairs",
    "dpo": "train a policy on preference pairs with DPO",
    "ipo": "train a policy on preference pairs with IPO",
}

TRAIN_DESCRIPTION = """{summary}.

A recipe is a YAML file of `key: value` lines; a flag of the same name wins over it. Keys:
  model           Hub id or folder (required)
  ref_model       Hub id or folder of the reference policy (dpo, ipo; default: the policy before training)
  train_dataset   Hub id, folder, .jsonl, .parquet, .csv, or embedded:ratings (required)
  eval_dataset    the same
  quantization    8bit or 4bit
  lora            true, or a mapping of LoraConfig fields (flags: --lora.r 32)
  anything else   a field of {config}: learning_rate, max_steps, output_dir, seed, ...
"""

TRAIN_EXAMPLES = """examples:
  hf-align {command} --config recipes/{command}.yaml
  hf-align {command} --config recipes/{command}.yaml --learning_rate 1e-5 --lora.r 32
  hf-align {command} --model ORG/MODEL --train_dataset pairs.jsonl --lora true --output_dir out
  hf-align {command} --config recipes/{command}.yaml --resume_from_checkpoint true
"""


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command."""
    parser = _Parser(
        prog="hf-align",
        description="Alignment training inside the Hugging Face Trainer.",
        epilog="`hf-align COMMAND --help` explains a command and shows examples.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    quickstart = commands.add_parser(
        "quickstart",
        help="reward model, DPO and IPO on the model and data that come with the package",
        description="Trains a reward model, DPO and IPO on human ratings that the package carries, evaluates them\n"
        "and writes a report. Needs no network. About 20 minutes on two CPU cores.",
        epilog=QUICKSTART_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    quickstart.add_argument("--out", default="./hf-align-quickstart", metavar="DIR", help="output folder (%(default)s)")
    quickstart.add_argument(
        "--profile", choices=("full", "smoke"), default="full", help="full (default), or smoke: under two minutes"
    )
    quickstart.add_argument("--quantization", choices=("8bit", "4bit"), help="quantise the base model (default: no)")
    quickstart.add_argument("--seed", type=int, default=0, help="seed of data, training and sampling (%(default)s)")
    again = quickstart.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the unfinished run in DIR")
    again.add_argument("--overwrite", action="store_true", help="delete an earlier quickstart in DIR first")
    quickstart.set_defaults(run=_lazy("hf_align.cli.quickstart", "run_quickstart"), takes_fields=False)

    for command, summary in TRAIN_HELP.items():
        config = "RewardConfig" if command == "reward" else f"{command.upper()}Config"
        train = commands.add_parser(
            command,
            help=summary,
            description=TRAIN_DESCRIPTION.format(summary=summary[0].upper() + summary[1:], config=config),
            epilog=TRAIN_EXAMPLES.format(command=command),
            usage=f"hf-align {command} [--config RECIPE.yaml] [--FIELD VALUE ...]",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        train.add_argument("--config", metavar="RECIPE.yaml", help="the recipe")
        train.set_defaults(run=_lazy("hf_align.cli.train", "run_training"), takes_fields=True)
    return parser


def _lazy(module: str, name: str) -> Callable[..., None]:
    def run(options: argparse.Namespace) -> None:
        getattr(import_module(module), name)(options)

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line without the program's name; default `sys.argv[1:]`.

    Returns:
        The exit status: 0 for success, 2 for bad input (one line on stderr says what), 130 after Ctrl-C.
    """
    try:
        options, fields = build_parser().parse_known_args(arguments)
        if fields and not options.takes_fields:
            raise UserError(f"{options.command} does not know {fields[0]}; see hf-align {options.command} --help")
        options.fields = fields
        options.arguments = list(sys.argv[1:] if arguments is None else arguments)
        options.run(options)
    except SystemExit as stop:  # argparse after --help
        return int(stop.code or EXIT_OK)
    except UserError as error:
        print(f"hf-align: error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt as stop:
        print(f"\nhf-align: interrupted. {stop}".rstrip(), file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK
