"""Commands that read a data set and write another, or what is wrong with it."""

import argparse

from hf_align.cli.command import QUANTIZATIONS, Command
from hf_align.cli.flag_types import at_most, seed
from hf_align.cli.flags import add_json, add_limit, add_page


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
    add_limit(parser)
    parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the weights (default: no)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    add_json(parser)
    best = parser.add_argument_group("best of N")
    best.add_argument("--best-of", type=at_most(10**5), metavar="N", help="sample N responses to each prompt of DATA")
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
    best.add_argument("--seed", type=seed, help="seed of the sampling (default: 0)")


SCORE = Command(
    "score",
    "add a reward model's scores to a data set, or keep the best of N samples",
    "Writes DATA with the scores of its responses to OUT. Rows are prompt with response or completion, pairs\n"
    "(chosen, rejected), response_a and response_b, responses to one prompt, or messages that end with an answer.\n"
    "With --best-of N it samples N responses to each prompt from --policy and keeps those with the best scores:\n"
    "completions to fine-tune on, best and worst as pairs, or all of them as rankings.\n"
    "A run that was stopped goes on where it stood when the same command is given again.",
    """  hf-align score --model out/reward data.jsonl scored.jsonl
  hf-align score --model ORG/MODEL ORG/DATA scored.parquet --max-length 2048
  hf-align score --model out/reward pairs.jsonl labelled.jsonl --labels
  hf-align score --model out/reward prompts.jsonl best.jsonl --best-of 8 --policy out/sft
  hf-align score --model out/reward prompts.jsonl pairs.jsonl --best-of 8 --policy out/sft --keep pairs
  hf-align score --judge ORG/MODEL prompts.jsonl pairs.jsonl --best-of 4 --policy out/sft --keep pairs
""",
    "hf_align.cli.commands.score:run_score",
    score_arguments,
    one_process=True,
)


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
    add_limit(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    add_json(parser, "the counts")


CONVERT = Command(
    "convert",
    "turn preference data of any known layout into pairs or rankings",
    "Recognises the layout of DATASET by its columns and first rows, and writes pairs (prompt, chosen, rejected) or\n"
    "rankings (prompt, responses, and ranking, scores or ratings), which all trainers take. One line says what was\n"
    "recognised and what was left out, by reason. Other columns stay. What isn't known is refused, with the nearest\n"
    "layout. docs/how-to/convert.md lists the layouts.",
    """  hf-align convert ORG/DATA pairs.jsonl
  hf-align convert helpsteer.jsonl.gz pairs.parquet --min-gap 1 --ties keep
  hf-align convert ratings.csv pairs.jsonl --json counts.json
  hf-align convert rankings.jsonl pairs.jsonl --pairs --overwrite
""",
    "hf_align.cli.commands.convert:run_convert",
    convert_arguments,
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
    add_limit(parser)
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt and response in training")
    parser.add_argument("--max-prompt-length", type=int, metavar="N", help="tokens of the prompt in training")
    parser.add_argument(
        "--min-agreement", type=float, default=0.7, metavar="S", help="least share of agreeing people (%(default)s)"
    )
    parser.add_argument("--min-margin", type=float, default=0.2, metavar="M", help="least margin (%(default)s)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of intervals and samples (%(default)s)")
    parser.add_argument(
        "--fix", metavar="OUT", help="write the clean rows to a .jsonl, .parquet or .csv file or a folder, and a log"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT and its log")
    add_page(parser)
    add_json(parser, "all findings", instead_of="text")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if there is an error, for CI")


INSPECT = Command(
    "inspect",
    "look at preference data before training on it",
    "Says what would spoil training on pairs or rankings: empty, identical, cut off or repetitive responses, broken\n"
    "encoding, template trouble, duplicates and contradictions, prompts shared with held-out rows, people who\n"
    "disagree, small margins, length bias. Each finding has its rows, an example and the fix.\n"
    "--fix OUT writes the rows without what is sure to be wrong, and what was dropped or changed to OUT-log.jsonl.\n"
    "Exit status 0 whatever was found (with --strict 1 if there is an error), 2 if the data can't be read.",
    """  hf-align inspect pairs.jsonl
  hf-align inspect pairs.jsonl --tokenizer ORG/MODEL --max-length 1024 --report inspection.html
  hf-align inspect ORG/DATA --eval-data held-out.jsonl --fix clean.jsonl
  hf-align inspect pairs.parquet --json findings.json --strict
  hf-align inspect embedded:ratings
""",
    "hf_align.cli.commands.inspect:run_inspect",
    inspect_arguments,
)
