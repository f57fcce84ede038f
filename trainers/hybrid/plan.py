"""What a hybrid run does, stage by stage, decided and checked before anything is loaded.

plan_stages              stages as given, with the hybrid's defaults
    plan_hand_overs      what each stage starts from: its weights, its reference
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftConfig
from transformers import TrainerCallback

from hf_align.algorithms import ALGORITHMS, Algorithm
from hf_align.errors import UserError
from hf_align.fields import as_written
from hf_align.models.kinds import check_is_policy
from hf_align.models.sources import check_source
from hf_align.models.trainable import check_is_model, only_with_path
from hf_align.trainers.arguments.table import OF_RUN
from hf_align.trainers.base import BranchTrainer
from hf_align.trainers.checks import check_best_metric, check_config_class, check_evaluation
from hf_align.trainers.hybrid.config import DEFAULT_STAGES, PREVIOUS, START, HybridConfig, Shared, Stage, Until
from hf_align.trainers.hybrid.hand_over import HandOver, check_adapter_config, plan_hand_overs, starts_as_adapter
from hf_align.trainers.hybrid.messages import in_stage, label_of
from hf_align.trainers.online.trainer import check_label
from hf_align.trainers.over_optimization import check_judge
from hf_align.trainers.resuming import ResumingTrainer
from hf_align.trainers.rollouts.schedule import seed_of


@dataclass(frozen=True)
class Planned:
    """A stage with everything decided.

    Attributes:
        number: From 1.
        stage: As given.
        algorithm: Its algorithm.
        trainer: The trainer's class.
        args: The trainer's config.
        rows: `train_dataset` and perhaps `eval_dataset`.
        scoring: Its reward and judges, by the trainer's argument.
        until: Its criterion.
        callbacks: Its callbacks and the hybrid's.
        peft_config: The adapter to make, if any.
        hand_over: What it starts from.
    """

    number: int
    stage: Stage
    algorithm: Algorithm
    trainer: type[Any]
    args: Any
    rows: dict[str, Any]
    scoring: dict[str, Any]
    until: Until | None
    callbacks: list[TrainerCallback]
    peft_config: PeftConfig | None
    hand_over: HandOver

    @property
    def label(self) -> str:
        """Its name in messages."""
        return label_of(self.number, self.algorithm.name)

    @property
    def folder(self) -> Path:
        """Its folder, with checkpoints, and `policy` once it is finished."""
        return Path(self.args.output_dir)


def plan_stages(stages: Sequence[Stage | str] | None, config: HybridConfig, shared: Shared) -> list[Planned]:
    """Decide what every stage does.

    Args:
        stages: The stages in order, or names of algorithms. None: `DEFAULT_STAGES`.
        config: Options of the run.
        shared: What is given for all stages.

    Raises:
        UserError: A stage, or what it starts from, isn't possible.
    """
    if stages is not None and not len(stages):
        raise UserError("stages is empty; name an algorithm, or leave stages out for DPO, PPO and IPO.")
    given = [Stage(each) if isinstance(each, str) else each for each in stages or DEFAULT_STAGES]
    algorithms = []
    for number, stage in enumerate(given, start=1):
        if not isinstance(stage, Stage):
            raise UserError(f"stages[{number - 1}] is a {type(stage).__name__}; give a Stage or an algorithm's name.")
        with in_stage(label_of(number, stage.algorithm)):
            algorithms.append(policy_algorithm(stage.algorithm))
    _check_model(shared)
    configs = []
    for number, (stage, algorithm) in enumerate(zip(given, algorithms, strict=True), start=1):
        with in_stage(label_of(number, algorithm.name)):
            configs.append(stage_args(stage.args, algorithm.load()[1], number, algorithm.name, config))
    hand_overs = plan_hand_overs(given, algorithms, configs, shared)
    planned = []
    for number, stage in enumerate(given, start=1):
        algorithm = algorithms[number - 1]
        with in_stage(label_of(number, algorithm.name)):
            parts = algorithm, configs[number - 1], hand_overs[number - 1]
            planned.append(_plan_stage(number, stage, *parts, shared))
    _check_budget(config, planned)
    return planned


def policy_algorithm(name: str) -> Algorithm:
    """An algorithm whose trainer trains a policy and resumes as ours do."""
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, list(ALGORITHMS), n=1)
        instead = f"did you mean {near[0]}?" if near else f"there are {', '.join(ALGORITHMS)}."
        raise UserError(f"there is no such algorithm; {instead}")
    algorithm = ALGORITHMS[name]
    trainer, config = algorithm.load()
    if getattr(config, "checkpoint_kind", "policy") == "reward":
        raise UserError(
            f"{name} trains a reward model, and a stage trains the policy; train it first, give it as reward."
        )
    if not issubclass(trainer, ResumingTrainer):
        raise UserError(
            f"{trainer.__name__} doesn't build on hf_align's trainers, so it can't go on exactly when killed."
        )
    if "reference" in algorithm.needs and not issubclass(trainer, BranchTrainer):
        raise UserError(f"{trainer.__name__} has a reference and is no BranchTrainer; only those are handed one.")
    return algorithm


def _check_model(shared: Shared) -> None:
    """Refuse a model or adapter that can't be handed from stage to stage."""
    model, adapter = shared.model, shared.peft_config
    only_with_path(model, shared.quantization)
    if isinstance(model, str):
        check_source(model)
    else:
        check_is_model(model)
    check_is_policy(model, "model")
    if adapter is None:
        return
    if not isinstance(adapter, PeftConfig):
        raise UserError(f"peft_config is a {type(adapter).__name__}; give a LoraConfig.")
    check_adapter_config(adapter, "peft_config")
    if starts_as_adapter(shared):
        raise UserError("model already has an adapter and peft_config asks for another; leave one of them out.")


def _plan_stage(
    number: int, stage: Stage, algorithm: Algorithm, args: Any, hand_over: HandOver, shared: Shared
) -> Planned:
    trainer, _ = algorithm.load()
    rows = {
        name: rows
        for name in ("train_dataset", "eval_dataset")
        if (rows := given if (given := getattr(stage, name)) is not None else getattr(shared, name)) is not None
    }
    if "train_dataset" not in rows:
        raise UserError("train_dataset is missing; give it to the stage or to the hybrid.")
    check_evaluation(args, rows.get("eval_dataset"))
    metrics = (*args.eval_metrics, *getattr(args, "further_metrics", ()))
    check_best_metric(args, rows.get("eval_dataset"), metrics)
    until = Until.of(stage.until)
    _check_until(until, args, rows.get("eval_dataset"), metrics)
    if getattr(args, "merge", False):
        raise UserError("merge saves a merged model at the end of `hf-align sft`; use adapter='new' in the next stage.")
    stands = hand_over.reference == START and hand_over.start != "policy"
    if stands and getattr(args, "sync_ref_model", False):
        raise UserError("sync_ref_model moves the reference, and reference 'start' stands still; use 'previous'.")
    makes, scoring = stage.peft_config or shared.peft_config, _scoring(stage, algorithm, trainer, shared)
    _check_judges(scoring, algorithm, args, rows.get("eval_dataset"))
    if until is not None and until.metric == "judge" and not {"judge", "eval_judge"} & {*scoring}:
        raise UserError("until.metric is 'judge' and there is no judge; give one that isn't the reward.")
    return Planned(
        number=number,
        stage=stage,
        algorithm=algorithm,
        trainer=trainer,
        args=args,
        rows=rows,
        scoring=scoring,
        until=until,
        callbacks=[*shared.callbacks, *(stage.callbacks or ())],
        peft_config=makes if stage.adapter == "new" or number == 1 else None,
        hand_over=hand_over,
    )


def stage_args(given: Any, config_class: type[Any], number: int, name: str, config: HybridConfig) -> Any:
    """The config of a stage's trainer, with the hybrid's folder and seed.

    Args:
        given: A config, a mapping of its options, or None.
        config_class: Its class.
        number: The stage's number.
        name: Its algorithm.
        config: Options of the run.

    Raises:
        UserError: An option is unknown, wrong, or the hybrid's.
    """
    seed = config.seed if number == 1 else seed_of(config.seed, number)
    default_seed = next(each.default for each in dataclasses.fields(config_class) if each.name == "seed")
    own = {"output_dir": str(Path(config.output_dir, f"stage-{number}-{name}"))}
    if given is None or isinstance(given, Mapping):
        names = [each.name for each in dataclasses.fields(config_class) if each.init]
        for option in given or ():
            if option in OF_RUN:
                raise UserError(f"{option} is the hybrid's; give it to HybridConfig.")
            if option not in names:
                near = difflib.get_close_matches(option, names, n=1, cutoff=0.6)
                meant = f"; did you mean {near[0]}?" if near else f"; options are those of {config_class.__name__}."
                raise UserError(f"{option} is no option{meant}")
        return _without_jit(config_class(**{"seed": seed, **(given or {}), **own}))
    check_config_class(given, config_class)
    for option in OF_RUN[1:]:
        if getattr(given, option, None):
            raise UserError(f"{option} is the hybrid's; give it to HybridConfig.")
    seed = seed if given.seed == default_seed else given.seed
    return _without_jit(dataclasses.replace(given, **own, seed=seed))


def _without_jit(args: Any) -> Any:
    """The config, unless SIGTERM would end its stage as if it were done."""
    if args.enable_jit_checkpoint:
        raise UserError(
            "enable_jit_checkpoint would end the stage as if it were done; leave it out: a stopped hybrid goes on from "
            "the stage's last checkpoint."
        )
    return args


def _check_until(until: Until | None, args: Any, eval_dataset: Any, metrics: Sequence[str]) -> None:
    if until is None:
        return
    if args.restore_callback_states_from_checkpoint:
        raise UserError("restore_callback_states_from_checkpoint doesn't go with until, which restores its own state.")
    if until.metric is None:
        return
    if as_written(args.eval_strategy) == "no":
        raise UserError("until.metric is looked at in evaluations, and eval_strategy is 'no'; set it to 'steps'.")
    sets = [f"{key}_" for key in eval_dataset] if isinstance(eval_dataset, dict) else [""]
    known = [f"{prefix}{metric}" for prefix in sets for metric in metrics]
    if until.metric not in known and not any(until.metric.startswith(f"{p}rewards/") for p in sets):
        raise UserError(f"until.metric is {until.metric!r}, which evaluations don't return; use {', '.join(known)}.")


def _scoring(stage: Stage, algorithm: Algorithm, trainer: type[Any], shared: Shared) -> dict[str, Any]:
    """The stage's reward and judges, from its own and the hybrid's."""
    accepted = inspect.signature(trainer.__init__).parameters
    given = {name: getattr(stage, name) for name in ("reward", "judge", "eval_judge")}
    for name, value in given.items():
        if value is not None and name not in accepted:
            raise UserError(f"{name} is given, and {algorithm.name} takes none; leave it out.")
    labelled_by_judge = "label" in algorithm.needs and given["judge"] is not None
    if given["reward"] is None and "reward" in accepted and not labelled_by_judge:
        given["reward"] = shared.reward
    watches = "eval_judge" if "eval_judge" in accepted else "judge"  # evaluations, for over-optimisation
    if given[watches] is None and watches in accepted:
        given[watches] = shared.judge
    if given["reward"] is None and "reward" in algorithm.needs:
        raise UserError("reward is missing; give it to the stage or to the hybrid.")
    return {name: value for name, value in given.items() if value is not None}


def _check_judges(scoring: Mapping[str, Any], algorithm: Algorithm, args: Any, eval_dataset: Any) -> None:
    """Refuse rewards and judges that the stage's trainer would refuse, hours later."""
    reward, judge = scoring.get("reward"), scoring.get("judge")
    if "label" in algorithm.needs:
        check_label(reward, judge, args)
        labels, trained_by = (judge, "judge") if reward is None else (reward, "reward")
        check_judge(scoring.get("eval_judge"), labels, args, eval_dataset, "eval_judge", trained_by)
    elif "reward" in algorithm.needs:
        check_judge(judge, reward, args, eval_dataset)


def _check_budget(config: HybridConfig, planned: Sequence[Planned]) -> None:
    """Refuse to limit the KL from a start that a stage's model can't compute."""
    for each in planned:
        limits = config.kl_budget is not None or (each.until is not None and each.until.kl is not None)
        if not limits:
            continue
        with in_stage(each.label):
            if measures_kl(each):
                continue
            if each.hand_over.reference is not None:
                raise UserError(
                    "the KL from the start is limited, and the start is neither the stage's reference nor its model "
                    "without the adapter; use reference 'start', or adapter 'continue'."
                )
            if each.until is not None and each.until.kl is not None:
                raise UserError(f"until.kl is the KL from the start, which {each.algorithm.name} can't measure here.")


def measures_kl(planned: Planned) -> bool:
    """Whether a stage's models can say how far its policy is from the start."""
    hand_over = planned.hand_over
    if hand_over.form == "adapter" and hand_over.start in ("off", "copy"):
        return True
    if hand_over.reference is None:
        return False
    if getattr(planned.args, "sync_ref_model", False):  # its reference doesn't stay where it started
        return False
    return hand_over.reference == START or (hand_over.start == "policy" and hand_over.reference == PREVIOUS)
