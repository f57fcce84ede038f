"""The table of commands: names, help texts and functions.

Imports nothing heavy, so that `--help` and flag errors are immediate. A new command is an entry of `COMMANDS`, with its
arguments in `hf_align.cli.arguments`. Training commands are made from `hf_align.algorithms`.
"""

from collections.abc import Iterable

from hf_align.algorithms import ALGORITHMS, Algorithm
from hf_align.cli.arguments import (
    annotate_arguments,
    collect_arguments,
    constitution_arguments,
    convert_arguments,
    evaluate_judge_arguments,
    evaluate_policy_arguments,
    evaluate_reward_arguments,
    export_arguments,
    improve_arguments,
    inspect_arguments,
    plan_arguments,
    push_arguments,
    quickstart_arguments,
    runs_arguments,
    score_arguments,
    select_arguments,
    sweep_arguments,
    training_arguments,
)
from hf_align.cli.benchmark import BENCHMARK
from hf_align.cli.command import Command
from hf_align.planning.selection.needs import NEEDS

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

_COLUMNS = {
    "pairs": "prompt, chosen, rejected",
    "comparisons": "prompt, chosen, rejected (optionally margin, label or votes), or\n"
    "                  prompt, responses, and ranking, scores or ratings",
    "prompts": "prompt; other columns are passed to the reward",
    "demonstrations": "prompt + completion, messages, or text",
}
_KEYS = {  # `hf_align.experiments.recipe` checks which are required
    "reference": "  ref_model       Hub id or folder of the reference policy (default: the policy before training)\n",
    "reward": """\
  reward          scores responses (required): a reward model's Hub id or folder, FILE.py:FUNCTION,
                  MODULE:FUNCTION, or a list of these with weights: [{reward: ..., weight: ...}]
  judge           an independent judge of evaluations, to see over-optimisation: vader, or as reward
""",
    "label": """\
  reward          scores responses: a reward model's Hub id or folder, FILE.py:FUNCTION, MODULE:FUNCTION, or a
                  list of these with weights. This or judge is required
  judge           compares responses: vader, a reward or language model's Hub id or folder, FILE.py:FUNCTION
                  (which scores), or a mapping with reward, function, model or endpoint
  eval_judge      an independent judge of evaluations, to see over-optimisation: vader, or as reward
""",
}
_AUGMENT = """\
  streaming       true: read train_dataset while training (takes max_steps), shuffled among shuffle_buffer rows
  augment         adds made pairs to train_dataset: transitivity and interpolation (true, or a number of pairs
                  for each row), paraphrase and back_translation (FILE.py:FUNCTION); --augment.transitivity true
"""
_PREPARE = """\
  prepare         true, or options of a preparation of train_dataset (several names or a folder of mixed files,
                  then): clean, quality, min_quality, duplicates, contamination, balance, most, ratio
"""

_OWN_KEYS = {
    "ensemble": """\
  n, bootstrap    number of members (4), and prompts that each draws, as a share of all (0.8; null: all rows)
  method          mean, median, trimmed_mean, min, uncertainty_weighted, dynamic, stacking or weight_average
  vary            values in which members differ, by option: {lora.r: [8, 16], learning_rate: [1e-4, 2e-4]}
""",
}
"""Keys of single algorithms that deserve a line."""


def _training(algorithm: Algorithm) -> Command:
    name, scored = algorithm.name, {"reward", "label"} & {*algorithm.needs}
    description = f"""{algorithm.summary[0].upper()}{algorithm.summary[1:]}.

A recipe is a YAML file of `key: value` lines; a flag of the same name overrides it. Keys:
  model           Hub id or folder (required)
{"".join(_KEYS.get(need, "") for need in algorithm.needs)}\
  train_dataset   Hub id, folder, file of any kind, or embedded:ratings (required)
                  with columns {_COLUMNS[algorithm.rows]}
  eval_dataset    the same
{_AUGMENT if algorithm.rows in ("pairs", "comparisons") else ""}\
{_PREPARE if algorithm.rows == "demonstrations" else ""}\
  quantization    8bit or 4bit
  lora            true, or a mapping of LoraConfig fields (flags: --lora.r 32)
{_OWN_KEYS.get(name, "")}\
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
    if name == "ensemble":  # resumes by itself
        examples[-1] = f"--config recipes/{name}.yaml --n 8 --vary.lora.r [8,16,32] --method uncertainty_weighted"
        description += "\nThe same command goes on after Ctrl-C or a crash: finished members are kept.\n"
    return _training_command(name, algorithm.summary, description, examples)


def _training_command(name: str, summary: str, description: str, examples: Iterable[str]) -> Command:
    return Command(
        name,
        summary,
        description,
        "".join(f"  hf-align {name} {example}\n" for example in examples),
        "hf_align.cli.commands.train:run_training",
        training_arguments,
        takes_fields=True,
        usage=f"hf-align {name} [--config RECIPE.yaml] [--FIELD VALUE ...] [--print-config | --dry-run]",
    )


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

IMPROVE = Command(
    "improve",
    "improve a policy on its own samples, in rounds, until a held-out judge sees no gain",
    """Rounds of self-improvement: the policy responds several times to prompts, a judge compares the responses, DPO or
IPO trains on the pairs, and a second judge, which the training never sees, compares the new policy with the best one
before it on held-out prompts. It ends the rounds where the policy gets worse, or only better in the training judge's
eyes.

A recipe is a YAML file of `key: value` lines; a flag of the same name overrides it. Keys:
  model           policy to start from: Hub id or folder (required)
  train_dataset   prompts: Hub id, folder, file of any kind with a column prompt, or embedded:ratings (required)
  eval_dataset    held-out prompts, as train_dataset (required)
  judge           who compares the samples (required): a reward model, a language model, vader, FILE.py:FUNCTION, or a
                  mapping with reward, function, model or endpoint; self is the policy of each round
  held_out_judge  who compares the policies: another judge, as above
  votes           pairs that people labelled (prompt, chosen, rejected): the judge's agreement with them in each round;
                  in place of held_out_judge where the policy judges itself
  output_dir      folder of everything: rounds, rounds.json, report.html and, in policy, the best policy (required)
  lora, quantization
  rounds, num_samples, prompts_per_round, pairs, anchor_share, reference, max_new_tokens, ...: options of the rounds
  anything else   a field of DPOConfig for the training in each round: loss_type (sigmoid, ipo, ...), learning_rate, ...

Every step is stored: the same command goes on after Ctrl-C or a crash, and gives the same data and weights.
""",
    """  hf-align improve --config recipes/improve.yaml
  hf-align improve --config recipes/improve.yaml --rounds 5 --loss_type ipo
  hf-align improve --config recipes/improve.yaml --judge self --votes embedded:ratings
  hf-align improve --config recipes/improve.yaml --dry-run
""",
    "hf_align.cli.commands.improve:run_improve",
    improve_arguments,
    takes_fields=True,
    usage="hf-align improve [--config RECIPE.yaml] [--FIELD VALUE ...] [--dry-run] [--json FILE]",
    one_process=True,
)

HYBRID = Command(
    "hybrid",
    "train a policy with several algorithms, one after another, as one run",
    """Runs stages of any algorithms that train a policy (default: DPO, PPO, IPO) one after another on one base, as one
run that resumes where it was killed. What each stage starts from and what its reference is, is shown by --dry-run and
recorded with the run.

A recipe is a YAML file of `key: value` lines; a flag of the same name overrides it. Keys:
  model           Hub id or folder (required)
  stages          list of stages, each with `algorithm:` (sft, dpo, ipo, online-dpo, ppo, ...) and any key of that
                  algorithm's own recipe, and
    reference       start (before the first stage with a reference), previous (as handed over), or a model
    adapter         continue (default), new (a new adapter, the former merged), merge (all weights from here on)
    until           ends the stage early: {metric: judge, patience: 2} when it stalls, {kl: 3.0} nats from the start
  train_dataset, eval_dataset, reward, judge (an independent one, of evaluations), and any option of the algorithms:
                  for each stage that has such a key and doesn't give it
  quantization, lora
  output_dir      the final policy, a folder for each stage, hybrid.json, report.html
  kl_budget       KL from the start that the whole run may spend, in nats per response
  anything else   a field of HybridConfig: seed, keep, kl_every, ...
Flags of a stage count from 1: --stages.2.total_episodes 512.
""",
    """  hf-align hybrid --config recipes/hybrid.yaml
  hf-align hybrid --config recipes/hybrid.yaml --dry-run
  hf-align hybrid --config recipes/hybrid.yaml --stages.1.beta 0.2 --kl_budget 10
  hf-align hybrid --model ORG/MODEL --reward out/reward --train_dataset data.jsonl --lora true --output_dir out
  hf-align hybrid --config recipes/hybrid.yaml --resume_from_checkpoint true
""",
    "hf_align.cli.commands.hybrid:run_hybrid",
    training_arguments,
    takes_fields=True,
    usage="hf-align hybrid [--config RECIPE.yaml] [--FIELD VALUE ...] [--print-config | --dry-run]",
)

SWEEP = Command(
    "sweep",
    "train a recipe at several weights of its rewards and draw the front",
    "Trains PPO once for each weighting of the recipe's rewards (`reward` is a list of at least two), each run in a\n"
    "folder of its own in output_dir, and draws what the policies reach on eval_dataset: front.html, .png and .json.\n"
    "The recipe's weights are the units. The same command again goes on where it stopped, and tries failed runs again.",
    """  hf-align sweep --config recipes/ppo.yaml --reward "[./out/helpful, rewards.py:short]"
  hf-align sweep --config recipes/ppo.yaml --reward "[./out/helpful, rewards.py:short]" --steps 8 --output_dir out/sweep
""",
    "hf_align.cli.commands.sweep:run_sweep",
    sweep_arguments,
    takes_fields=True,
    usage="hf-align sweep [--config RECIPE.yaml] [--steps N] [--FIELD VALUE ...]",
)

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

SELECT = Command(
    "select",
    "recommend an algorithm for data, a model, resources and needs",
    f"""Scores every algorithm that trains a policy, and best-of-n, by the data (pairs, agreement, margins, prompts,
lengths), the model, the memory and time that an estimate gives, and your needs. Prints the first with reasons, each
with its source, advantages and drawbacks, options to begin with, and the runner-up with when to take it. Trains
nothing, loads no weights. The rules are one table, with a source each; --rules takes yours. They haven't been tested
against a benchmark yet: read the choice as advice.

needs (--need, several at once or repeated):
{chr(10).join(f"  {name:<16} {text}" for name, text in NEEDS.items())}
""",
    """  hf-align select --data pairs.jsonl --model ORG/MODEL --gpu 24GB
  hf-align select --data pairs.jsonl --model ORG/MODEL --gpu 24GB --hours 24 --need robust_to_noise simple
  hf-align select --data pairs.jsonl --model ORG/MODEL --gpu 80GB --reward ./out/reward
  hf-align select --data ORG/DATA --model ORG/MODEL --gpu 24GB --gpus 2 --budget 50 --price 1.5 --speed 60
  hf-align select --data embedded:ratings --model ./hf-align-quickstart/base --json choice.json
  hf-align select --data pairs.jsonl --model ORG/MODEL --rules mine.yaml
""",
    "hf_align.cli.commands.select:run_select",
    select_arguments,
)

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

OTHERS = (
    EVALUATE,
    CONVERT,
    INSPECT,
    SCORE,
    COLLECT,
    CONSTITUTION,
    IMPROVE,
    HYBRID,
    BENCHMARK,
    ANNOTATE,
    EXPORT,
    SWEEP,
    SELECT,
    RUNS,
    PLAN,
    PUSH,
    ALGORITHMS_LIST,
    DOCTOR,
    COMPLETION,
)
_TAKEN = {command.name for command in (QUICKSTART, *OTHERS)}
TRAINING = (
    *map(_training, ALGORITHMS.builtin.values()),
    *(  # not imported until they run, so only their place is known
        _training_command(
            each.name,
            f"train with {each.value}",
            f"Trains with {each.value}. `hf-align algorithms` shows the data and models it needs.",
            ("--config RECIPE.yaml", "--config RECIPE.yaml --dry-run"),
        )
        for each in ALGORITHMS.third_party.values()
        if each.name not in _TAKEN
    ),
)
COMMANDS: tuple[Command, ...] = (QUICKSTART, *TRAINING, *OTHERS)
