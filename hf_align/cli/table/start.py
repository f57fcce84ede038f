"""Commands to begin with: quickstart, the list of algorithms, a check of the machine, completion."""

import argparse

from hf_align.cli.command import QUANTIZATIONS, Command
from hf_align.cli.flag_types import seed


def quickstart_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align quickstart`."""
    parser.add_argument("--out", default="./hf-align-quickstart", metavar="DIR", help="output folder (%(default)s)")
    parser.add_argument(
        "--profile", choices=("full", "smoke"), default="full", help="full (default), or smoke: about two minutes"
    )
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the base model (default: no)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of data, training and sampling (%(default)s)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the unfinished run in DIR")
    again.add_argument("--overwrite", action="store_true", help="delete an earlier quickstart in DIR first")


QUICKSTART = Command(
    "quickstart",
    "train reward model, DPO, IPO and PPO on the included model and data",
    "Trains a reward model, DPO, IPO and PPO on human ratings included in the package, evaluates\n"
    "them and writes a report. Needs no network. About half an hour on two CPU cores.",
    """  hf-align quickstart                              everything, in ./hf-align-quickstart
  hf-align quickstart --profile smoke --out try    the same in two minutes, with results that mean little
  hf-align quickstart --quantization 4bit --out q  on a 4-bit base model
  hf-align quickstart --resume                     continue after Ctrl-C or a crash
""",
    "hf_align.cli.commands.quickstart:run_quickstart",
    quickstart_arguments,
)

ALGORITHMS_LIST = Command(
    "algorithms",
    "list the algorithms, with the data and models that each needs",
    "Lists the algorithms that have a training command: this package's, and those that other packages add\n"
    "under the entry-point group hf_align.algorithms. One that can't be imported is listed with the reason.",
    """  hf-align algorithms
  hf-align algorithms --json
""",
    "hf_align.cli.commands.algorithms:run_algorithms",
    lambda parser: parser.add_argument("--json", action="store_true", help="print a JSON list instead of the table"),
)

DOCTOR = Command(
    "doctor",
    "check this machine: versions, GPU, bitsandbytes, disk, Hub login",
    "Checks this machine and reports problems: versions, GPU, a real 4-bit product with\n"
    "bitsandbytes, the CPU's speed in bfloat16, free disk space and the login to the Hub.\n"
    "Exit status 2 if something that training needs is missing or broken.",
    "  hf-align doctor\n",
    "hf_align.cli.commands.doctor:run_doctor",
)

COMPLETION = Command(
    "completion",
    "print a script that completes commands and flags in a shell",
    "Prints a completion script for bash, zsh or fish. It includes every field of every config, and starts no Python.",
    """  hf-align completion bash > ~/.local/share/bash-completion/completions/hf-align
  hf-align completion zsh > ~/.zfunc/_hf-align          with `fpath+=~/.zfunc; autoload -U compinit; compinit`
  hf-align completion fish > ~/.config/fish/completions/hf-align.fish
""",
    "hf_align.cli.commands.completion:run_completion",
    lambda parser: parser.add_argument(
        "shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish"
    ),
)
