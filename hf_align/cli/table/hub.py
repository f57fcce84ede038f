"""The command that publishes."""

import argparse

from hf_align.cli.command import Command


def push_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align push`."""
    parser.add_argument("folder", metavar="DIR", help="folder of a saved adapter or model, or of an exported data set")
    parser.add_argument("repo", metavar="REPO", help="ORG/NAME, or NAME in your namespace; created if it is new")
    parser.add_argument(
        "--merge", action="store_true", help="push whole weights: the adapter merged into its base in float32"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="dtype of merged weights (default: the base model's; float32 for a reward model)",
    )
    parser.add_argument("--base-model", metavar="ORG/NAME", help="Hub id of the base model, if yours is a local copy")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--license", metavar="NAME", help="license in the card, such as apache-2.0")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to (default: main)")
    parser.add_argument("--message", help="commit message (default: Upload a model, or a data set, with hf-align)")


PUSH = Command(
    "push",
    "push a saved model, adapter, merged weights or an exported data set to the Hub",
    "Pushes a model folder with its tokenizer, heads and model card in one commit, or the rows and the card that\n"
    "hf-align export wrote. Checkpoints, optimizers and logs are not pushed. An adapter on a local base model needs\n"
    "--base-model, the same model's id on the Hub, or --merge. Log in with `hf auth login` first, or set HF_TOKEN.",
    """  hf-align push out/dpo ORG/my-dpo-adapter
  hf-align push out/dpo ORG/my-dpo-adapter --base-model HuggingFaceTB/SmolLM2-135M-Instruct --license apache-2.0
  hf-align push out/reward ORG/my-reward-model --merge --private
  hf-align push out/ppo ORG/my-policy --merge --dtype bfloat16
  hf-align push preferences ORG/my-preferences --license cc-by-4.0 --private
""",
    "hf_align.cli.commands.push:run_push",
    push_arguments,
)
