"""Commands that train policies: one for each algorithm, and those that run several trainings.

The former are made from `hf_align.algorithms`.
"""

import argparse
from collections.abc import Collection, Iterable

from hf_align.algorithms import ALGORITHMS, Algorithm
from hf_align.cli.command import Command
from hf_align.cli.flags import add_dry_run, add_json, add_recipe

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


def training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a training command."""
    add_recipe(parser)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--print-config",
        "--print_config",
        action="store_true",
        help="print the recipe with every option in effect, without training",
    )
    add_dry_run(instead, "check options, data, model, memory and disk, without training")


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


def training_commands(taken: Collection[str]) -> tuple[Command, ...]:
    """A command for each algorithm; another package's that is called like one that is `taken` gets none."""
    others = (
        # not imported until they run, so only their place is known
        _training_command(
            each.name,
            f"train with {each.value}",
            f"Trains with {each.value}. `hf-align algorithms` shows the data and models it needs.",
            ("--config RECIPE.yaml", "--config RECIPE.yaml --dry-run"),
        )
        for each in ALGORITHMS.third_party.values()
        if each.name not in taken
    )
    return *map(_training, ALGORITHMS.builtin.values()), *others


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


def improve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `hf-align improve`."""
    add_recipe(parser)
    add_dry_run(parser, "check options, data, judges and room for responses, without sampling or training")
    add_json(parser)


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
