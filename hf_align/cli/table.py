"""The table of commands: what each is called, takes, shows as help, and which function runs it.

Imports nothing heavy, so that `--help` and a wrong flag answer at once. A new command is an entry of `COMMANDS`.
Training commands are made from `hf_align.algorithms`.
"""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hf_align.algorithms import ALGORITHMS, Algorithm

QUANTIZATIONS = ("8bit", "4bit")


@dataclass(frozen=True)
class Command:
    """A command, or a group of them.

    Attributes:
        name: What is typed.
        summary: One line for the list of commands.
        description: What `--help` says first.
        examples: Command lines that `--help` shows, indented by two.
        run: "module:function"; the function gets the parsed arguments.
        add_arguments: Adds the flags to the parser.
        takes_fields: Whether flags that are not declared are a recipe's keys.
        usage: Replaces argparse's own line.
        parts: The commands of a group, which has no `run` of its own.
    """

    name: str
    summary: str
    description: str
    examples: str
    run: str = ""
    add_arguments: Callable[[argparse.ArgumentParser], Any] = lambda parser: None
    takes_fields: bool = False
    usage: str | None = None
    parts: tuple["Command", ...] = ()


def _quickstart_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="./hf-align-quickstart", metavar="DIR", help="output folder (%(default)s)")
    parser.add_argument(
        "--profile", choices=("full", "smoke"), default="full", help="full (default), or smoke: about two minutes"
    )
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the base model (default: no)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, training and sampling (%(default)s)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the unfinished run in DIR")
    again.add_argument("--overwrite", action="store_true", help="delete an earlier quickstart in DIR first")


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the recipe")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--print-config",
        "--print_config",
        action="store_true",
        help="print the recipe with every option in force, and train nothing",
    )
    instead.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="check options, data, model, memory and disk, and train nothing",
    )


def _seed_and_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the weights (default: no)")
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling and intervals (%(default)s)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of intervals (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there; - prints them instead of the table")


def _evaluate_reward_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="reward model: folder or Hub id")
    parser.add_argument("--data", required=True, help="pairs or rated responses, or embedded:ratings")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows (default: all)")
    _seed_and_json(parser)


def _evaluate_policy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, action="append", help="policy: folder or Hub id; repeat it to compare with the first"
    )
    parser.add_argument("--data", required=True, help="rows with a prompt, or embedded:ratings")
    parser.add_argument("--judge", default="vader", help="vader (default), a reward model, or FILE.py:FUNCTION")
    parser.add_argument("--limit", type=int, metavar="N", default=200, help="prompts, at most (%(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="of a response (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="prompts at a time (%(default)s)")
    _seed_and_json(parser)


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="what a trainer saved: an adapter or a whole model")
    parser.add_argument("repo", metavar="REPO", help="ORG/NAME, or NAME in your own namespace; made if it is new")
    parser.add_argument("--merge", action="store_true", help="push whole weights: the adapter merged in, in float32")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of merged weights (default: the base model's; float32 for a reward model)",
    )
    parser.add_argument("--base-model", metavar="ORG/NAME", help="Hub id of the base model, if yours is a local copy")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--license", metavar="NAME", help="for the model card, such as apache-2.0")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument("--message", default="Upload a model with hf-align", help="of the commit (%(default)s)")


QUICKSTART = Command(
    "quickstart",
    "reward model, DPO, IPO and PPO on the model and data that come with the package",
    "Trains a reward model, DPO, IPO and PPO on human ratings that the package carries, evaluates\n"
    "them and writes a report. Needs no network. About half an hour on two CPU cores.",
    """  hf-align quickstart                              everything, in ./hf-align-quickstart
  hf-align quickstart --profile smoke --out try    the same path in two minutes, with results that mean little
  hf-align quickstart --quantization 4bit --out q  on a 4-bit base model
  hf-align quickstart --resume                     go on after Ctrl-C or a crash
""",
    "hf_align.cli.commands.quickstart:run_quickstart",
    _quickstart_arguments,
)

_COLUMNS = {
    "pairs": "prompt, chosen, rejected, and for a reward model optionally margin",
    "prompts": "prompt; other columns are passed to the reward",
    "demonstrations": "prompt + completion, messages, or text",
}
_KEYS = {  # which of them are required is checked in `hf_align.experiments.recipe`
    "reference": "  ref_model       Hub id or folder of the reference policy (default: the policy before training)\n",
    "reward": """\
  reward          what scores responses (required): a reward model's Hub id or folder, FILE.py:FUNCTION,
                  MODULE:FUNCTION, or a list of these with weights: [{reward: ..., weight: ...}]
""",
}


def _training(algorithm: Algorithm) -> Command:
    name, scored = algorithm.name, "reward" in algorithm.needs
    description = f"""{algorithm.summary[0].upper()}{algorithm.summary[1:]}.

A recipe is a YAML file of `key: value` lines; a flag of the same name wins over it. Keys:
  model           Hub id or folder (required)
{"".join(_KEYS.get(need, "") for need in algorithm.needs)}\
  train_dataset   Hub id, folder, .jsonl, .parquet, .csv, or embedded:ratings (required)
                  with columns {_COLUMNS[algorithm.rows]}
  eval_dataset    the same
  quantization    8bit or 4bit
  lora            true, or a mapping of LoraConfig fields (flags: --lora.r 32)
  anything else   a field of {algorithm.config.partition(":")[2]}: learning_rate, max_steps, output_dir, seed, ...
"""
    reward = " --reward out/reward" if scored else ""
    examples = [
        f"--config recipes/{name}.yaml",
        f"--config recipes/{name}.yaml --learning_rate 1e-5 --lora.r 32",
        f"--model ORG/MODEL{reward} --train_dataset data.jsonl --lora true --output_dir out",
        f"--config recipes/{name}.yaml --dry-run",
        f"--config recipes/{name}.yaml --resume_from_checkpoint true",
    ]
    if scored:
        examples.insert(3, f"--config recipes/{name}.yaml --reward rewards.py:politeness --total_episodes 512")
    return _training_command(name, algorithm.summary, description, examples)


def _training_command(name: str, summary: str, description: str, examples: Iterable[str]) -> Command:
    return Command(
        name,
        summary,
        description,
        "".join(f"  hf-align {name} {example}\n" for example in examples),
        "hf_align.cli.commands.train:run_training",
        _training_arguments,
        takes_fields=True,
        usage=f"hf-align {name} [--config RECIPE.yaml] [--FIELD VALUE ...] [--print-config | --dry-run]",
    )


EVALUATE = Command(
    "evaluate",
    "measure a reward model, or what policies write",
    "Measures a reward model on pairs or ratings, or policies by what they write.",
    """  hf-align evaluate reward --model out/reward --data pairs.jsonl
  hf-align evaluate policy --model base --model out/dpo --data prompts.jsonl
""",
    parts=(
        Command(
            "reward",
            "how well a reward model agrees with people",
            "Scores held-out data with a reward model. With columns chosen and rejected: the share of pairs that it\n"
            "orders as people did, and the mean difference of rewards. With response and rating (a number) or ratings\n"
            "(a list, one a person): Pearson's r and the share of pairs ordered alike. 95% intervals.",
            """  hf-align evaluate reward --model out/reward --data pairs.jsonl
  hf-align evaluate reward --model ./hf-align-quickstart/reward --data embedded:ratings
  hf-align evaluate reward --model ORG/MODEL --data ORG/DATA --quantization 4bit --json figures.json
""",
            "hf_align.cli.commands.evaluate:run_reward",
            _evaluate_reward_arguments,
        ),
        Command(
            "policy",
            "what policies write, scored by a judge",
            "Samples one response to each prompt at temperature 1 and scores it. Shows the mean score, its gain over\n"
            "the first policy on the same prompts, distinct-2 (the share of different word pairs), the length in\n"
            "tokens and the share of responses that ended themselves. 95% intervals.",
            """  hf-align evaluate policy --model out/dpo --data prompts.jsonl --judge out/reward
  hf-align evaluate policy --model ./hf-align-quickstart/base --model ./hf-align-quickstart/dpo \\
      --data embedded:ratings --json figures.json
  hf-align evaluate policy --model ORG/MODEL --data ORG/DATA --judge rewards.py:politeness --limit 50
""",
            "hf_align.cli.commands.evaluate:run_policy",
            _evaluate_policy_arguments,
        ),
    ),
)

PUSH = Command(
    "push",
    "push a saved model, adapter or merged weights to the Hub",
    "Pushes a model folder with its tokenizer, heads and model card in one commit. Checkpoints, optimizers and\n"
    "logs stay here. An adapter whose base model is a local folder needs --base-model, the same model's id on the\n"
    "Hub, or --merge. Log in with `hf auth login` first, or set HF_TOKEN.",
    """  hf-align push out/dpo ORG/my-dpo-adapter
  hf-align push out/dpo ORG/my-dpo-adapter --base-model HuggingFaceTB/SmolLM2-135M-Instruct --license apache-2.0
  hf-align push out/reward ORG/my-reward-model --merge --private
  hf-align push out/ppo ORG/my-policy --merge --dtype bfloat16
""",
    "hf_align.cli.commands.push:run_push",
    _push_arguments,
)

DOCTOR = Command(
    "doctor",
    "check this machine: versions, GPU, bitsandbytes, disk, Hub login",
    "Shows what hf-align finds on this machine, and what of it won't work: versions, GPU, a real 4-bit product with\n"
    "bitsandbytes, how fast the CPU is in bfloat16, free disk space, and whether you are logged in to the Hub.\n"
    "Exit status 2 if something that training needs is missing or broken.",
    "  hf-align doctor\n",
    "hf_align.cli.commands.doctor:run_doctor",
)

COMPLETION = Command(
    "completion",
    "print a script that completes commands and flags in a shell",
    "Prints a completion script for bash, zsh or fish. It knows every field of every config, and runs nothing itself.",
    """  hf-align completion bash > ~/.local/share/bash-completion/completions/hf-align
  hf-align completion zsh > ~/.zfunc/_hf-align          with `fpath+=~/.zfunc; autoload -U compinit; compinit`
  hf-align completion fish > ~/.config/fish/completions/hf-align.fish
""",
    "hf_align.cli.commands.completion:run_completion",
    lambda parser: parser.add_argument(
        "shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="bash, zsh or fish"
    ),
)

ALGORITHMS_LIST = Command(
    "algorithms",
    "list what can be trained, with what each algorithm reads and needs",
    "Lists the algorithms that have a training command: this package's, and those that other installed packages add\n"
    "under the entry-point group hf_align.algorithms. One that can't be imported is listed with the reason.",
    """  hf-align algorithms
  hf-align algorithms --json
""",
    "hf_align.cli.commands.algorithms:run_algorithms",
    lambda parser: parser.add_argument("--json", action="store_true", help="print a JSON list instead of the table"),
)

OTHERS = (EVALUATE, PUSH, ALGORITHMS_LIST, DOCTOR, COMPLETION)
_TAKEN = {command.name for command in (QUICKSTART, *OTHERS)}
TRAINING = (
    *map(_training, ALGORITHMS.builtin.values()),
    *(  # imported only when they run, so nothing is known of them but their place
        _training_command(
            each.name,
            f"train with {each.value}",
            f"Trains with {each.value}. `hf-align algorithms` shows what it reads and needs.",
            ("--config RECIPE.yaml", "--config RECIPE.yaml --dry-run"),
        )
        for each in ALGORITHMS.third_party.values()
        if each.name not in _TAKEN
    ),
)
COMMANDS: tuple[Command, ...] = (QUICKSTART, *TRAINING, *OTHERS)
