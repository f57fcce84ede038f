"""Commands that get preferences from people and models."""

import argparse

from hf_align.cli.command import Command
from hf_align.cli.flag_types import seed
from hf_align.cli.flags import add_dry_run, add_json, add_recipe


def collect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align collect`."""
    add_recipe(parser)
    add_dry_run(parser, "check options, data and models' names, without collecting")
    add_json(parser)


COLLECT = Command(
    "collect",
    "collect preferences from people and models, until there are enough",
    """Loops until a store has n valid comparisons: chooses prompts, has models respond, makes pairs, asks annotators,
checks their agreement and quality, asks more of them where that is needed, and aggregates.

A recipe is a YAML file of `key: value` lines; a flag of the same name overrides it. Keys:
  store           file, such as prefs.db, or a database URL (required)
  prompts         Hub id, folder, file of any kind, or embedded:ratings, with a column prompt; optionally pool,
                  domain, value, adversarial. Without it only what the store has is finished
  models          who writes responses: Hub ids or folders (required with prompts)
  annotators      who compares them (required): names of people, who answer on the page (hf-align annotate), or
                  {name: anna, domains: [law], group: expert}; {reward: out/reward}, {reward: vader},
                  {function: FILE.py:FUNCTION} or {judge: ...}, any judge of hf-align evaluate judge, perhaps with
                  name, group, domains, tie_band
  n               valid comparisons wanted in the store (required)
  gold            pairs with a known better response, to check annotators: as prompts, or {NAME: DATA, ...}
  reward          an ensemble, or a list of rewards, for selection: disagreement or information
  features        for selection: information without reward: a language model's Hub id or folder, on whose hidden
                  states a head is fitted to the answers so far (default: the first language model of models)
  adjudicators    names of people whose answer decides what stays open; the page gives them that alone
  classify        FILE.py:FUNCTION that names a prompt's domain
  split, quantization, cache, wait (false: return when only people can go on)
  anything else   a field of CollectionConfig: annotators_per_task, min_agreement, batch_size, seed, ...

Everything is in the store: the same command goes on after Ctrl-C or a crash.
""",
    """  hf-align collect --config recipes/collect.yaml
  hf-align collect --config recipes/collect.yaml --n 500 --annotators "[anna, ben, cleo]"
  hf-align collect --config recipes/collect.yaml --dry-run
  hf-align collect --config recipes/collect.yaml --wait false --json figures.json
""",
    "hf_align.cli.commands.collect:run_collect",
    collect_arguments,
    takes_fields=True,
    usage="hf-align collect [--config RECIPE.yaml] [--FIELD VALUE ...] [--dry-run] [--json FILE]",
    one_process=True,
)


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


ANNOTATE = Command(
    "annotate",
    "open the page on which people compare responses",
    "Serves a page that shows the store's tasks, two responses side by side in random order, and stores each answer\n"
    "before it shows the next task. Keys: 1 or left arrow, 2 or right arrow, 3 or t for a tie, s skip, u undo.\n"
    "Only this machine can open it. With --share or another --host people log in (--users or --user).\n"
    "Any number of people can answer at the same time, on one page or on several.",
    """  hf-align annotate --store prefs.db
  hf-align annotate --store prefs.db --annotator anna --port 8000
  hf-align annotate --store prefs.db --share --user anna --user bob
  hf-align annotate --store postgresql://db/prefs --host 0.0.0.0 --users users.txt
""",
    "hf_align.cli.commands.annotate:run_annotate",
    annotate_arguments,
)


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
    parser.add_argument("--seed", type=seed, default=0, help="seed of the split (%(default)s)")
    parser.add_argument("--license", metavar="NAME", help="licence of the data in the card, such as cc-by-4.0")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    add_json(parser, "all statistics")


EXPORT = Command(
    "export",
    "make a data set with a card of the answers in a preference store",
    "Makes a preference data set of the answers that people and models gave: prompt, chosen (the better response),\n"
    "rejected and margin (strength of the preference, 0 to 1), which all trainers here and TRL's take, with every\n"
    "answer, agreement and origin beside them. A folder has one Parquet file a split and a card with statistics:\n"
    "load_dataset(OUT) reads it, hf-align push OUT ORG/NAME pushes it. One line says what was left out, and why.",
    """  hf-align export --store prefs.db preferences --license cc-by-4.0
  hf-align export --store prefs.db preferences --test-share 0.1 --min-agreement 0.7 --overwrite
  hf-align export --store prefs.db soft.jsonl --soft-labels --ties keep
  hf-align export --store prefs.db votes.parquet --rows votes --method majority
  hf-align export --store postgresql://host/prefs preferences --json statistics.json
  hf-align export --store prefs.db --statistics
""",
    "hf_align.cli.commands.export:run_export",
    export_arguments,
)


def constitution_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align constitution`."""
    add_recipe(parser)
    add_dry_run(parser, "check options, data and lengths, without writing anything")
    add_json(parser)


CONSTITUTION = Command(
    "constitution",
    "have a model make demonstrations and preferences by principles",
    """Makes training data by a constitution (Bai et al., 2022). Half of the prompts get a response that the model
criticises and revises by several principles in turn; a response that breaks none stays as it is. The other half get
several responses, on which a judge votes by each principle: the mean is the pair's soft label.

A recipe is a YAML file of `key: value` lines; a flag of the same name overrides it. Keys:
  output_dir        folder for sft.jsonl, preferences.jsonl, every step, statistics and a card (required)
  prompts           Hub id, folder, file of any kind, or embedded:ratings, with a column prompt (required)
  model             who responds, criticises and revises: Hub id or folder of a model with a chat template, or
                    FILE.py:FUNCTION, f(list of messages) -> list of texts (required)
  judge             who votes (required unless sft_share is 1): Hub id or folder of a language model, asked by each
                    principle; {function: FILE.py:FUNCTION}, f(prompt, first, second, principle); or any other judge,
                    such as a reward model, which is asked once a pair
  preference_model  who writes the responses that are compared (default: model), such as the model after `hf-align sft`
  constitution      YAML file with principles (default: ten that come with hf-align)
  classify          FILE.py:FUNCTION that names a prompt's domain
  split, limit (first rows), license, quantization
  anything else     a field of ConstitutionConfig: revisions, threshold, sft_share, max_new_tokens, seed, ...

Every step is stored when it is done: the same command goes on after Ctrl-C or a crash, to the same data.
""",
    """  hf-align constitution --config recipes/constitution.yaml
  hf-align constitution --config recipes/constitution.yaml --constitution principles.yaml --revisions 2
  hf-align constitution --config recipes/constitution.yaml --dry-run
  hf-align constitution --config recipes/constitution.yaml --sft_share 1 --json figures.json
""",
    "hf_align.cli.commands.constitution:run_constitution",
    constitution_arguments,
    takes_fields=True,
    usage="hf-align constitution [--config RECIPE.yaml] [--FIELD VALUE ...] [--dry-run] [--json FILE]",
    one_process=True,
)
