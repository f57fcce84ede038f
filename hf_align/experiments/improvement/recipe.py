"""The recipe of `hf-align improve`: a policy, prompts, judges, and the options of rounds and training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig

from hf_align.data.sources import load_rows
from hf_align.errors import UserError
from hf_align.experiments.improvement.config import ImprovementConfig
from hf_align.experiments.improvement.job import Job, Prompts, Votes, read_prompts, read_votes, separate
from hf_align.experiments.improvement.judging import RecipeJudge, check_held_out
from hf_align.experiments.improvement.rounds import Improvement, improve
from hf_align.experiments.improvement.rule import detectable_fall
from hf_align.experiments.recipe import (
    Recipe,
    check_given,
    check_recipe,
    check_values,
    field_hints,
    missing_key,
    source_keys,
)
from hf_align.experiments.run import LORA_DEFAULTS, make_config
from hf_align.fields import as_written
from hf_align.models.kinds import check_is_policy
from hf_align.models.sources import adapter_config, check_source, plain_folder
from hf_align.progress import Progress
from hf_align.rollouts.sampler import check_room
from hf_align.trainers.checks import check_place
from hf_align.trainers.dpo import DPOConfig, check_reference

KEYS: dict[str, Any] = {
    "judge": str | list | dict,
    "held_out_judge": str | list | dict | None,
    "votes": str | None,
}
"""Keys of a recipe besides those that name policy and prompts, and the fields of both configs."""
SEEN = "with probability .8 in each round: a win rate over the best policy of"
NOTHING_SEEN = "none with probability .8: too few held-out prompts"
WITHOUT = (
    *("resume_from_checkpoint", "enable_jit_checkpoint", "push_to_hub", "load_best_model_at_end"),
    "metric_for_best_model",
)
"""Options of a training that a round has no use for."""


@dataclass(frozen=True)
class ImprovementRun:
    """A checked recipe, before any weight is loaded.

    Attributes:
        recipe: The recipe, for its keys' places.
        source: Policy, data and judges by key.
        config: Options of the rounds.
        training: Options of `DPOConfig` that were given.
        args: The trainer's config, as one round has it.
        lora: Adapter to make, if any.
        prompts: Prompts to train on, without repeated and held-out ones.
        left_out: Prompts that were left out for that.
        held_out: Prompts to evaluate on.
        votes: Pairs that people labelled.
        judge: Judges the training's pairs.
        held_out_judge: Judges the policies.
    """

    recipe: Recipe
    source: dict[str, Any]
    config: ImprovementConfig
    training: dict[str, Any]
    args: DPOConfig
    lora: LoraConfig | None
    prompts: Prompts
    left_out: int
    held_out: Prompts
    votes: Votes | None
    judge: RecipeJudge
    held_out_judge: RecipeJudge | None

    def plan(self) -> list[tuple[str, str]]:
        """Names and figures of what the recipe asks for; loads no weights."""
        config, held_out = self.config, self.held_out_judge
        prompts = config.prompts_per_round or len(self.prompts)
        votes = 0 if self.votes is None else len(self.votes.pairs)
        units = (self.held_out.units if held_out is not None or self.votes is None else self.votes.units).max() + 1
        fall = detectable_fall(int(units), config.error_of_a_test)
        lines = [
            ("policy", self.source["model"]),
            ("prompts", f"{len(self.prompts):,} ({self.left_out:,} repeated or held-out ones left out)"),
            ("held-out prompts", f"{len(self.held_out):,}"),
            ("judge", self.judge.name),
            ("held-out judge", "none" if held_out is None else held_out.name),
            ("pairs labelled by people", f"{votes:,}"),
            ("rounds", f"up to {config.rounds}"),
            ("samples of a round", f"{prompts * config.num_samples:,} to {prompts:,} prompts"),
            ("loss", ", ".join(self.args.loss_types)),
            ("stopped by error", f"in at most {config.false_stop:.0%} of runs"),
            ("fall that is noticed", NOTHING_SEEN if fall >= 0.5 else f"{SEEN} {0.5 - fall:.2f}"),
        ]
        return lines

    def job(self, progress: Progress) -> Job:
        """The inputs of the rounds."""
        return Job(
            folder=Path(str(self.args.output_dir)),
            settings=_settings(self.recipe),
            model=self.source["model"],
            config=self.config,
            training=self.training,
            seed=self.args.seed,
            lora=self.lora,
            quantization=self.source["quantization"],
            judge=self.judge,
            held_out_judge=self.held_out_judge,
            prompts=self.prompts,
            held_out=self.held_out,
            votes=self.votes,
            progress=progress,
        )

    def execute(self, progress: Progress) -> Improvement:
        """Run the rounds; the same call goes on where an earlier one ended.

        Raises:
            UserError: A model can't be loaded, a judge fails, or the folder holds something else.
            KeyboardInterrupt: After Ctrl-C.
        """
        return improve(self.job(progress))


def prepare_improvement(recipe: Recipe) -> ImprovementRun:
    """Check a recipe and read its data; no weights are loaded.

    Raises:
        UserError: A key is unknown, missing or has a wrong value, data can't be read, or policy and judges don't fit.
    """
    own = {**KEYS, **field_hints(ImprovementConfig)}
    check_values(recipe, {**source_keys((), "prompts"), **field_hints(DPOConfig), **own}, KEYS)
    values = check_values(_part(recipe, own, inside=True), own, KEYS)
    checked = check_recipe(_part(recipe, own, inside=False), DPOConfig, LoraConfig)
    source = {**checked.source, **{key: values.pop(key, None) for key in KEYS}}
    check_given(source, ("judge", "eval_dataset"))
    if "output_dir" not in checked.config:
        raise missing_key("output_dir")
    config, args = ImprovementConfig(**values), make_config("improve", DPOConfig, checked)
    _check_training(recipe, args, config)
    check_place(Path(args.output_dir), recipe.where("output_dir"))
    check_source(source["model"])
    check_is_policy(source["model"], "model", ask_hub=True)
    _check_adapter(recipe, source, checked.lora)
    judge, held_out_judge = _judges(recipe, source)
    prompts, held_out, left_out = _prompts(source, config, args)
    return ImprovementRun(
        recipe,
        source,
        config,
        checked.config,
        args,
        None if checked.lora is None else LoraConfig(**{**LORA_DEFAULTS, **checked.lora}),
        prompts,
        left_out,
        held_out,
        _votes(source["votes"], config, args.seed),
        judge,
        held_out_judge,
    )


def _part(recipe: Recipe, keys: Mapping[str, Any], *, inside: bool) -> Recipe:
    """The recipe's values under these keys, or under all others."""
    chosen = {key: value for key, value in recipe.values.items() if (key in keys) is inside}
    return Recipe(chosen, recipe.places, recipe.bare)


def _check_training(recipe: Recipe, args: DPOConfig, config: ImprovementConfig) -> None:
    if config.reference == "start":
        check_reference(args, recipe.where("reference"))
    for name in WITHOUT:
        if getattr(args, name):
            raise UserError(f"{recipe.where(name)} doesn't go with rounds; leave it out")
    if as_written(args.eval_strategy) != "no":
        raise UserError(
            f"{recipe.where('eval_strategy')} doesn't go with rounds, which are evaluated after training; leave it out"
        )


def _check_adapter(recipe: Recipe, source: Mapping[str, Any], lora: Mapping[str, Any] | None) -> None:
    """Refuse an adapter on an adapter, and quantised weights without one."""
    is_adapter = adapter_config(plain_folder(source["model"])) is not None
    if is_adapter and lora is not None:
        raise UserError(
            f"{recipe.where('lora')}: {source['model']} already is an adapter, which is trained further; leave lora "
            "out, or merge it into its base first"
        )
    if source["quantization"] is not None and lora is None and not is_adapter:
        raise UserError(
            f"{recipe.where('quantization')}: quantised weights train only through an adapter; add lora: true"
        )


def _judges(recipe: Recipe, source: Mapping[str, Any]) -> tuple[RecipeJudge, RecipeJudge | None]:
    """The judges, which exist and differ."""
    judge = RecipeJudge(source["judge"], recipe.where("judge"), source["quantization"])
    judge.checked(source["model"])
    if source["held_out_judge"] is None:
        if source["votes"] is None:
            raise UserError(
                "held_out_judge is missing: name a judge that the training never sees, or give votes, pairs that "
                "people labelled, where the policy judges itself"
            )
        if not judge.is_policy:
            raise UserError(
                f"{recipe.where('votes')} alone can't follow a judge that stays the same: its agreement with people "
                "doesn't change; name a held_out_judge, too"
            )
        return judge, None
    held_out = RecipeJudge(source["held_out_judge"], recipe.where("held_out_judge"))
    check_held_out(judge, held_out, source["model"])
    held_out.checked(source["model"])
    return judge, held_out


def _prompts(source: Mapping[str, Any], config: ImprovementConfig, args: DPOConfig) -> tuple[Prompts, Prompts, int]:
    """Prompts to train on, held-out ones, and the number left out; each leaves the policy room to respond."""
    train, held_out = (load_rows(source[f"{role}_dataset"], role, args.seed, "prompts") for role in ("train", "eval"))
    asked = read_prompts(held_out, "eval_dataset", config.eval_limit)
    everything = read_prompts(train, "train_dataset")
    prompts = separate(everything, asked)
    if config.prompts_per_round is not None and config.prompts_per_round > len(prompts):
        raise UserError(
            f"prompts_per_round is {config.prompts_per_round}, and train_dataset has {len(prompts)} different prompts "
            "that aren't held out; give at most that"
        )
    longest, _ = (
        check_room(source["model"], part.contents, part.options, config.max_new_tokens, name)
        for name, part in (("train_dataset", prompts), ("eval_dataset", asked))
    )
    if args.max_length is not None and longest + config.max_new_tokens > args.max_length:
        raise UserError(
            f"max_length is {args.max_length}, and train_dataset's longest prompt takes {longest} tokens, to which "
            f"max_new_tokens={config.max_new_tokens} come: the training would cut what was sampled; give at least "
            f"{longest + config.max_new_tokens}, or leave max_length out"
        )
    return prompts, asked, len(everything) - len(prompts)


def _votes(name: str | None, config: ImprovementConfig, seed: int) -> Votes | None:
    return None if name is None else read_votes(load_rows(name, "eval", seed), config.eval_limit)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """What a run's results depend on, as JSON has it."""
    values = {key: value for key, value in recipe.values.items() if key != "output_dir"}
    return json.loads(json.dumps(values, default=str))
