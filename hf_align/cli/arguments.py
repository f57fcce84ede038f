"""The arguments of the commands in `hf_align.cli.table`, a function for each. Imports nothing heavy."""

import argparse

from hf_align.planning.selection.needs import NEEDS

QUANTIZATIONS = ("8bit", "4bit")


def quickstart_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align quickstart`."""
    parser.add_argument("--out", default="./hf-align-quickstart", metavar="DIR", help="output folder (%(default)s)")
    parser.add_argument(
        "--profile", choices=("full", "smoke"), default="full", help="full (default), or smoke: about two minutes"
    )
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the base model (default: no)")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, training and sampling (%(default)s)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the unfinished run in DIR")
    again.add_argument("--overwrite", action="store_true", help="delete an earlier quickstart in DIR first")


def training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a training command."""
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the recipe")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--print-config",
        "--print_config",
        action="store_true",
        help="print the recipe with every option in effect, without training",
    )
    instead.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="check options, data, model, memory and disk, without training",
    )


def _seed_and_json(parser: argparse.ArgumentParser, *, quantization: bool = True) -> None:
    if quantization:
        parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the weights (default: no)")
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling and intervals (%(default)s)")
    parser.add_argument("--resamples", type=int, default=2000, help="bootstrap resamples of intervals (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE; - prints them instead of the table")


def evaluate_reward_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align evaluate reward`."""
    parser.add_argument("--model", required=True, help="any reward model: folder or Hub id")
    parser.add_argument("--data", required=True, help="Hub id, folder, file of any kind, or embedded:ratings")
    parser.add_argument(
        "--split", metavar="NAME", help="split of --data (default: the first of test, validation, train)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows (default: all)")
    parser.add_argument("--output", metavar="NAME", help="name or number of the output, if the model has several")
    parser.add_argument(
        "--chat-template",
        metavar="FILE",
        help="Jinja template for all rows; tokenizer: the model's; none: no template for plain text (default: the "
        "model's for messages and for benchmarks, none for other plain text)",
    )
    parser.add_argument(
        "--judge", help="of best-of-n: vader, a reward model, or FILE.py:FUNCTION (default: people's scores)"
    )
    parser.add_argument(
        "--across-prompts", action="store_true", help="compare rated responses to different prompts, too"
    )
    parser.add_argument(
        "--min-gap", type=float, default=0.0, metavar="G", help="ratings no further apart are undecided (%(default)s)"
    )
    parser.add_argument(
        "--robustness-texts",
        type=int,
        default=400,
        metavar="N",
        help="texts that are changed for robustness, each in 19 ways (%(default)s); 0 leaves it out",
    )
    parser.add_argument(
        "--dropout-passes",
        type=int,
        default=10,
        metavar="N",
        help="of an ensemble, passes over all texts with dropout (%(default)s); 0 leaves them out",
    )
    parser.add_argument("--report", metavar="FILE", help="write one self-contained page (.html)")
    parser.add_argument(
        "--card", action="store_true", help="put the main figures into the card (README.md) of --model's folder"
    )
    parser.add_argument("--result", metavar="FILE", help="of a benchmark: write the result as its script does (JSON)")
    parser.add_argument("--outputs", metavar="FILE", help="of a benchmark: write each row's scores (JSON lines)")
    _seed_and_json(parser)


def evaluate_judge_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align evaluate judge`."""
    parser.add_argument(
        "--judge",
        required=True,
        metavar="VALUE",
        help="vader, a reward or language model (folder or Hub id), FILE.py:FUNCTION, or a mapping as in recipes, "
        'such as "{model: ORG/MODEL, calibrate: pairs.jsonl}"',
    )
    parser.add_argument("--data", required=True, help="Hub id, folder, file of any kind, or embedded:ratings")
    parser.add_argument(
        "--split", metavar="NAME", help="split of --data (default: the first of test, validation, train)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows (default: all)")
    parser.add_argument(
        "--max-pairs", type=int, default=1000, metavar="N", help="most pairs asked about, drawn (%(default)s)"
    )
    parser.add_argument(
        "--again",
        type=int,
        default=200,
        metavar="N",
        help="most of them asked about again in the other order (%(default)s)",
    )
    parser.add_argument(
        "--gaps",
        type=float,
        nargs="+",
        metavar="G",
        help="ends of the buckets of how far apart people find two responses (default: 0.5 1 2 points of ratings)",
    )
    parser.add_argument(
        "--own", action="append", metavar="SOURCE", help="source of responses that is the judge; repeat (its name)"
    )
    parser.add_argument("--report", metavar="FILE", help="write one self-contained page (.html)")
    _seed_and_json(parser, quantization=False)


def evaluate_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align evaluate policy`."""
    parser.add_argument(
        "--model", required=True, action="append", help="policy: folder or Hub id; repeat to compare with the first"
    )
    parser.add_argument("--data", required=True, help="rows with a prompt, or embedded:ratings")
    parser.add_argument(
        "--judge",
        action="append",
        help="vader (default), a reward model, FILE.py:FUNCTION, or a judge of pairs: a language model, or a mapping "
        "as in a recipe ('{model: ORG/MODEL, bias: 0.7}'); repeat for several, of which the first decides",
    )
    parser.add_argument("--reference", metavar="NAME", help="policy that the others are compared with (the first)")
    parser.add_argument("--limit", type=int, metavar="N", default=200, help="maximum number of prompts (%(default)s)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="maximum tokens of a response (%(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="prompts at a time (%(default)s)")
    parser.add_argument(
        "--human-text",
        metavar="DATA",
        help="rows with a text by people, for lost ability (default: test sentences of the embedded ratings)",
    )
    parser.add_argument(
        "--human-texts", type=int, default=200, metavar="N", help="most of these texts (%(default)s); 0 leaves them out"
    )
    parser.add_argument("--report", metavar="FILE", help="write one self-contained page (.html)")
    parser.add_argument(
        "--front",
        metavar="FILE",
        help="of several judges: draw the policies' trade-off between them (.html, .png or .json)",
    )
    _seed_and_json(parser)


def convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align convert`."""
    parser.add_argument("source", metavar="DATASET", help="Hub id, folder, .jsonl, .json, .parquet, .csv, .tsv, or .gz")
    parser.add_argument("target", metavar="OUT", help="a .jsonl, .parquet or .csv file, or a folder")
    parser.add_argument("--layout", metavar="NAME", help="the layout of DATASET (default: the one recognised)")
    parser.add_argument(
        "--ties",
        choices=("drop", "keep"),
        default="drop",
        help="leave ties out (default), or keep both orders, each with weight 0.5",
    )
    parser.add_argument(
        "--min-gap",
        type=float,
        default=0.5,
        metavar="G",
        help="rated responses become a pair if their ratings are further apart (%(default)s)",
    )
    parser.add_argument("--pairs", action="store_true", help="make pairs of rankings, too, as DPO needs them")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="split of DATASET (default: the first of train, test, validation, or the only one)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows (default: all)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    parser.add_argument("--json", metavar="FILE", help="write the counts to FILE; - prints them instead of the lines")


def collect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align collect`."""
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the recipe")
    parser.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="check options, data and models' names, without collecting"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE; - prints them instead of the lines")


def constitution_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align constitution`."""
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the recipe")
    parser.add_argument(
        "--dry-run", "--dry_run", action="store_true", help="check options, data and lengths, without writing anything"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE; - prints them instead of the lines")


def improve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align improve`."""
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the recipe")
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="check options, data, judges and room for responses, without sampling or training",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE; - prints them instead of the lines")


def sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align sweep`."""
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the recipe of PPO")
    parser.add_argument(
        "--steps",
        type=int,
        default=4,
        metavar="N",
        help="weights are multiples of 1/N: N + 1 runs for two (%(default)s)",
    )


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
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE; - prints them instead of the lines")


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
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE; - prints them instead of the text")


def score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align score`."""
    parser.add_argument("source", metavar="DATA", help="Hub id, folder, file of any kind, or embedded:ratings")
    parser.add_argument("target", metavar="OUT", help="a .jsonl, .parquet or .csv file, or a folder")
    parser.add_argument("--model", help="reward model: folder or Hub id")
    parser.add_argument("--column", metavar="NAME", help="name of the new column (default: score)")
    parser.add_argument(
        "--labels", action="store_true", help="add to pairs the label sigmoid(score_chosen - score_rejected)"
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="of an ensemble: add its members' standard deviation (score_std)",
    )
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens read (default: the model's positions)")
    parser.add_argument("--output", metavar="NAME", help="name or number of the output, if the model has several")
    parser.add_argument(
        "--chat-template",
        metavar="FILE",
        help="Jinja template for all rows; tokenizer: the model's (default: that for messages, none for text)",
    )
    parser.add_argument("--split", metavar="NAME", help="split of DATA (default: the first of train, test, validation)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows (default: all)")
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the weights (default: no)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE; - prints them instead of the lines")
    best = parser.add_argument_group("best of N")
    best.add_argument("--best-of", type=int, metavar="N", help="sample N responses to each prompt of DATA")
    best.add_argument("--policy", metavar="P", help="model to sample from: folder or Hub id")
    best.add_argument(
        "--judge",
        help="instead of --model a judge that compares all pairs of samples: a language model, or a mapping as in a "
        "recipe ('{model: ORG/MODEL, bias: 0.7}')",
    )
    best.add_argument(
        "--keep",
        choices=("best", "pairs", "all"),
        help="best (default): prompt and completion; pairs: the best and the worst; all: every response with its score",
    )
    best.add_argument("--finished-only", action="store_true", help="leave out samples that the length limit cut")
    best.add_argument("--max-new-tokens", type=int, metavar="N", help="maximum tokens of a sample (default: 256)")
    best.add_argument("--temperature", type=float, metavar="T", help="divides the logits (default: 1)")
    best.add_argument(
        "--top-p", type=float, metavar="P", help="total probability of the tokens sampled from (default: 1)"
    )
    best.add_argument("--batch-size", type=int, metavar="N", help="samples generated at a time (default: 64)")
    best.add_argument("--seed", type=int, help="seed of the sampling (default: 0)")


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align export`."""
    parser.add_argument(
        "target", nargs="?", metavar="OUT", help="a folder (with a card, README.md), or a .jsonl or .parquet file"
    )
    parser.add_argument("--store", default="prefs.db", metavar="FILE|URL", help="the preference store (%(default)s)")
    parser.add_argument(
        "--statistics", action="store_true", help="print statistics of the whole store and export nothing, without OUT"
    )
    parser.add_argument(
        "--method",
        choices=("dawid_skene", "skill_weighted", "weighted", "majority"),
        default="dawid_skene",
        help="how the answers to a task become one (%(default)s)",
    )
    parser.add_argument(
        "--rows",
        choices=("tasks", "votes", "answers"),
        default="tasks",
        help="a row a task (default), a row a task with all its votes in a list, or a row an answer",
    )
    parser.add_argument(
        "--soft-labels", action="store_true", help="give P(chosen better) as preference instead of a margin"
    )
    parser.add_argument(
        "--ties", choices=("drop", "keep"), default="drop", help="leave ties out (default), or keep them"
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=0.0,
        metavar="S",
        help="leave out tasks with a smaller share of the commonest vote (%(default)s)",
    )
    parser.add_argument(
        "--min-quality",
        type=float,
        default=0.0,
        metavar="Q",
        help="leave out answers of a lower quality, by time, confidence, reason and track record (%(default)s)",
    )
    parser.add_argument(
        "--adjudicator",
        action="append",
        metavar="NAME",
        help="annotator whose answer is the verdict, beside those collected with as adjudicators; repeat for more",
    )
    parser.add_argument(
        "--open-tasks",
        choices=("drop", "keep"),
        default="drop",
        help="leave out tasks that wait for more answers (default), or take the answers that are there",
    )
    parser.add_argument("--gold", action="store_true", help="export gold questions, too, with the known preference")
    parser.add_argument("--names", action="store_true", help="name the annotators (default: digests)")
    parser.add_argument(
        "--no-reasons", dest="reasons", action="store_false", help="leave out the reasons, which may name people"
    )
    parser.add_argument(
        "--test-share",
        type=float,
        default=0.0,
        metavar="S",
        help="share of prompts in the split test (%(default)s: no split); no prompt is in both",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (%(default)s)")
    parser.add_argument("--license", metavar="NAME", help="licence of the data in the card, such as cc-by-4.0")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    parser.add_argument(
        "--json", metavar="FILE", help="write all statistics to FILE; - prints them instead of the lines"
    )


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align inspect`."""
    parser.add_argument("source", metavar="DATASET", help="Hub id, folder, file of any kind, or embedded:ratings")
    parser.add_argument(
        "--tokenizer", metavar="M", help="name or folder: adds lengths in tokens, truncation and special tokens"
    )
    parser.add_argument("--eval-data", metavar="D", help="rows to evaluate on, to find what both have")
    parser.add_argument(
        "--split", metavar="NAME", help="split of DATASET (default: the first of train, test, validation)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows (default: all)")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt and response in training")
    parser.add_argument("--max-prompt-length", type=int, metavar="N", help="tokens of the prompt in training")
    parser.add_argument(
        "--min-agreement", type=float, default=0.7, metavar="S", help="least share of agreeing people (%(default)s)"
    )
    parser.add_argument("--min-margin", type=float, default=0.2, metavar="M", help="least margin (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of intervals and samples (%(default)s)")
    parser.add_argument(
        "--fix", metavar="OUT", help="write the clean rows to a .jsonl, .parquet or .csv file or a folder, and a log"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT and its log")
    parser.add_argument("--report", metavar="FILE", help="write one self-contained page (.html)")
    parser.add_argument("--json", metavar="FILE", help="write all findings to FILE; - prints them instead of the text")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if there is an error, for CI")


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


def annotate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align annotate`."""
    parser.add_argument("--store", default="prefs.db", metavar="FILE|URL", help="the preference store (%(default)s)")
    parser.add_argument(
        "--annotator",
        metavar="NAME",
        help="who answers without a login or ?annotator=NAME in the address (default: your login name)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, metavar="N", help="port (default: the first free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="make a public address through Gradio's tunnel")
    parser.add_argument("--users", metavar="FILE", help="who may log in: one name:password a line")
    parser.add_argument(
        "--user", action="append", metavar="NAME", help="who may log in, with a new password, printed once; repeat"
    )
    parser.add_argument(
        "--gold-share",
        type=float,
        metavar="S",
        help="share of questions with known answers (default: the collection's, 0.1 without one)",
    )
