"""Commands that measure reward models, policies and judges."""

import argparse

from hf_align.cli.command import QUANTIZATIONS, Command
from hf_align.cli.flag_types import at_most, seed
from hf_align.cli.flags import add_json, add_limit, add_page


def _seed_and_json(parser: argparse.ArgumentParser, *, quantization: bool = True) -> None:
    if quantization:
        parser.add_argument("--quantization", choices=QUANTIZATIONS, help="quantise the weights (default: no)")
    parser.add_argument("--seed", type=seed, default=0, help="seed of sampling and intervals (%(default)s)")
    parser.add_argument(
        "--resamples", type=at_most(10**6), default=2000, help="bootstrap resamples of intervals (%(default)s)"
    )
    add_json(parser, "all figures", instead_of="table")


def evaluate_reward_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align evaluate reward`."""
    parser.add_argument("--model", required=True, help="any reward model: folder or Hub id")
    parser.add_argument("--data", required=True, help="Hub id, folder, file of any kind, or embedded:ratings")
    parser.add_argument(
        "--split", metavar="NAME", help="split of --data (default: the first of test, validation, train)"
    )
    add_limit(parser)
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
    add_page(parser)
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
    add_limit(parser)
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
    add_page(parser)
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
    add_page(parser)
    parser.add_argument(
        "--front",
        metavar="FILE",
        help="of several judges: draw the policies' trade-off between them (.html, .png or .json)",
    )
    _seed_and_json(parser)


EVALUATE = Command(
    "evaluate",
    "measure a reward model, policies or a judge",
    "Measures a reward model or a judge on what people preferred, or policies by their responses.",
    """  hf-align evaluate reward --model out/reward --data pairs.jsonl
  hf-align evaluate judge --judge ORG/MODEL --data pairs.jsonl
  hf-align evaluate policy --model base --model out/dpo --data prompts.jsonl
""",
    parts=(
        Command(
            "reward",
            "agreement of a reward model with people",
            "Says whether a reward model can be trusted: accuracy, rank agreement, calibration, robustness, length\n"
            "and style, subsets, best-of-n against a judge, the 20 worst rows; with 95% intervals. Rows:\n"
            "  pairs       prompt, chosen, rejected; optionally label, votes, or chosen_ratings and rejected_ratings\n"
            "  rankings    prompt, responses, and ranking, scores or ratings\n"
            "  ratings     prompt, response, and rating or ratings (one number per person)\n"
            "  benchmarks  RewardBench, RewardBench 2 and RM-Bench, measured by their own formulas, too\n"
            "A column subset or domain names subsets. Texts and messages work; the template used is named.",
            """  hf-align evaluate reward --model out/reward --data pairs.jsonl --report report.html
  hf-align evaluate reward --model ./hf-align-quickstart/reward-merged --data embedded:ratings --judge vader
  hf-align evaluate reward --model ORG/MODEL --data ORG/DATA --split filtered --result result.json
  hf-align evaluate reward --model ORG/CLASSIFIER --data pairs.jsonl --output POSITIVE --json figures.json
""",
            "hf_align.cli.commands.evaluate_reward:run_reward",
            evaluate_reward_arguments,
        ),
        Command(
            "policy",
            "responses of policies, scored by a judge",
            "Samples one response per prompt at temperature 1 and says whether they are better than the reference's:\n"
            "win rate, also at equal length, the judge's scores, KL from the reference, variety, length, ability lost\n"
            "on text by people, the 20 best and worst prompts, parts of the data. 95% intervals over prompts.",
            """  hf-align evaluate policy --model base --model out/dpo --data p.jsonl --report page.html
  hf-align evaluate policy --model ./hf-align-quickstart/base --model ./hf-align-quickstart/dpo \\
      --data embedded:ratings --json figures.json
  hf-align evaluate policy --model ORG/MODEL --data ORG/DATA --judge rewards.py:politeness --limit 50
  hf-align evaluate policy --model out/a --model out/b --data p.jsonl \\
      --judge out/helpful --judge rewards.py:short --front front.html
  hf-align evaluate policy --model base --model out/dpo --data p.jsonl \\
      --judge "{model: ORG/MODEL, calibrate: pairs.jsonl}"
""",
            "hf_align.cli.commands.evaluate:run_policy",
            evaluate_policy_arguments,
        ),
        Command(
            "judge",
            "agreement of a judge with people, and what sways it",
            "Asks a judge about pairs that people compared and says whether it is fit to stand in for them: agreement\n"
            "by how far apart people find two responses, beside people's own with each other; ties and choices that\n"
            "change with the order; position and length effects; calibration; preference for its own responses.\n"
            "95% intervals over prompts. Rows: pairs, rankings or ratings, in any layout of hf-align convert.",
            """  hf-align evaluate judge --judge vader --data embedded:ratings
  hf-align evaluate judge --judge ORG/MODEL --data pairs.jsonl --report judge.html
  hf-align evaluate judge --judge "{model: ORG/MODEL, calibrate: more.jsonl}" --data pairs.jsonl --json figures.json
  hf-align evaluate judge --judge out/reward --data ORG/DATA --split test --max-pairs 500
""",
            "hf_align.cli.commands.evaluate_judge:run_judge",
            evaluate_judge_arguments,
        ),
    ),
)
