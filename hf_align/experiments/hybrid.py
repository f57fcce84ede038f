"""The run of `hf-align hybrid`: stages from a recipe, each checked as its own command would check it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_align.algorithms import Algorithm
from hf_align.errors import UserError
from hf_align.experiments.recipe import Recipe, check_values, dump_recipe, field_hints, missing_key, source_keys
from hf_align.experiments.run import Run, check_inputs, load_run_rows, loading_errors, prepare
from hf_align.feedback.judges.named import NamedJudge
from hf_align.progress import Progress
from hf_align.trainers.arguments.table import OF_RUN
from hf_align.trainers.checkpoints import RESUME
from hf_align.trainers.hybrid.config import DEFAULT_STAGES, Adapter, HybridConfig, Stage
from hf_align.trainers.hybrid.messages import in_stage, label_of
from hf_align.trainers.hybrid.plan import policy_algorithm
from hf_align.trainers.hybrid.state import STATE
from hf_align.trainers.hybrid.trainer import HybridTrainer
from hf_align.yaml_text import dump_yaml

KEYS: dict[str, Any] = {
    "model": str,
    "stages": list | None,
    "train_dataset": str | list[str] | None,
    "eval_dataset": str | None,
    "reward": str | list | None,
    "judge": str | list | None,
    "quantization": str | None,
    "lora": bool | dict | None,
}
"""Keys of the recipe besides the fields of `HybridConfig` and options that stages share."""
OF_STAGE: dict[str, Any] = {
    "algorithm": str,
    "reference": str | None,
    "adapter": Adapter,
    "until": dict | None,
}
"""Keys of a stage besides those of its algorithm's own recipe."""
NOT_OF_STAGE = ("model", "quantization", "ref_model", *OF_RUN)
INDENT = "    "


@dataclass(frozen=True)
class StageRun:
    """A stage of a checked recipe.

    Attributes:
        number: From 1.
        run: The run that its algorithm's own command would make of it.
        entry: The keys that its entry in the recipe has.
        named: Its data, rewards and so on as the recipe names them.
    """

    number: int
    run: Run
    entry: dict[str, Any]
    named: dict[str, Any]

    @cached_property
    def rows(self) -> dict[str, Dataset]:
        """Its rows, loaded once."""
        with in_stage(self.label):
            return load_run_rows(self.run)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return label_of(self.number, self.run.algorithm.name)

    def options(self) -> dict[str, Any]:
        """Options of its trainer that were given, without those that are the whole run's."""
        options = {name: value for name, value in self.run.checked.config.items() if name not in (*OF_RUN, "seed")}
        return {**options, **({"seed": self.entry["seed"]} if "seed" in self.entry else {})}

    def stage(self, *, opened: bool) -> Stage:
        """The stage as the trainer takes it, with its rows and rewards; `opened`: with its judge of pairs loaded."""
        source = self.run.checked.source
        scoring = {name: source.get(name) for name in ("reward", "judge", "eval_judge")}
        if opened and isinstance(scoring["judge"], NamedJudge):
            scoring["judge"] = scoring["judge"].opened
        own = {name: self.entry[name] for name in ("reference", "adapter", "until") if self.entry.get(name) is not None}
        with in_stage(self.label):
            return Stage(
                self.run.algorithm.name,
                {"disable_tqdm": True, **self.options()},
                **self.rows,
                **scoring,
                **own,
                peft_config=self.run.lora() if "lora" in self.entry else None,
            )

    def dump(self) -> str:
        """Its entry as YAML, with every option in effect."""
        source = {name: value for name, value in self.named.items() if name not in NOT_OF_STAGE}
        checked = replace(
            self.run.checked,
            source=source,
            lora=self.run.checked.lora if "lora" in self.entry else None,
            config=self.options(),
        )
        own = {name: self.entry[name] for name in OF_STAGE if self.entry.get(name) is not None}
        options = dump_recipe(checked, type(self.run.args), hidden=(*OF_RUN, "seed"))
        return _indented(dump_yaml({**own, "algorithm": self.run.algorithm.name}), "  - ") + _indented(options, INDENT)


@dataclass(frozen=True)
class HybridRun:
    """A checked recipe, before any weight is loaded.

    Attributes:
        config: Options of the run.
        given: Values of `KEYS` that were given.
        stages: The stages.
        resume: Whether to go on with the run in `output_dir`.
    """

    config: HybridConfig
    given: dict[str, Any]
    stages: list[StageRun]
    resume: bool

    def trainer(self, *, progress: Progress | None = None, opened: bool = False) -> HybridTrainer:
        """The trainer, which checks stages and rows and loads no policy.

        Args:
            progress: Receiver of progress.
            opened: Whether judges of pairs are opened, which loads their models.

        Raises:
            UserError: A stage, a hand-over or a row is unusable.
        """
        has_adapter = self.given.get("lora") not in (None, False)
        return HybridTrainer(
            self.given["model"],
            [each.stage(opened=opened) for each in self.stages],
            self.config,
            peft_config=self.stages[0].run.lora() if has_adapter else None,
            quantization_config=self.given.get("quantization"),
            progress=progress,
        )

    def notes(self) -> list[str]:
        """Load all rows; lines to show before training: what became of them."""
        return [f"{each.label}: {note}" for each in self.stages if each.rows for note in each.run.notes]

    def dump(self) -> str:
        """The recipe as YAML with every option of every stage in effect; it reads back to the same run."""
        of_run = {name: self.given.get(name) for name in ("model", "quantization", "lora")}
        values = {name: value for name, value in {**of_run, **vars(self.config)}.items() if value is not None}
        return dump_yaml(values) + "stages:\n" + "".join(each.dump() for each in self.stages)

    def execute(self, progress: Progress) -> None:
        """Run the stages that aren't done, and save the final policy.

        Raises:
            UserError: Something can't be loaded, or `output_dir` holds another run.
            KeyboardInterrupt: After Ctrl-C; during training a checkpoint is saved first.
        """
        trainer = self.trainer(progress=progress, opened=True)
        with loading_errors(self.given["model"]):
            trainer.train(resume_from_checkpoint=self.resume or None)

    def after_ctrl_c(self, command: str) -> str:
        """How to go on after Ctrl-C, given the command line."""
        if not Path(self.config.output_dir, STATE).exists():
            return "Nothing was saved yet; the same command starts again."
        return f"Resume with: {command} --{RESUME} true"


def _indented(text: str, first: str) -> str:
    lines = text.splitlines()
    return "".join(f"{first if number == 0 else INDENT}{line}\n" if line else "\n" for number, line in enumerate(lines))


def prepare_hybrid(recipe: Recipe) -> HybridRun:
    """Check the keys and values of a hybrid's recipe, and those of its stages.

    Raises:
        UserError: A key or value is wrong; names the stage and the place.
    """
    resume = recipe.values.pop(RESUME, None)
    if not isinstance(resume, bool | None):
        raise UserError(f"{recipe.where(RESUME)} is {resume!r}; give true: the run knows where it stood")
    entries = _entries(recipe)
    algorithms = []
    for number, entry in enumerate(entries, start=1):
        with in_stage(label_of(number, str(entry["algorithm"]))):
            algorithms.append(policy_algorithm(entry["algorithm"]))
    of_run = field_hints(HybridConfig)
    shared = {key: hint for each in algorithms for key, hint in _hints(each).items() if key not in NOT_OF_STAGE}
    top = check_values(recipe, {**shared, **of_run, **KEYS}, (*KEYS, *of_run))
    if not top.get("model"):
        raise missing_key("model")
    config = HybridConfig(**{key: value for key, value in top.items() if key in of_run})
    given = {key: value for key, value in top.items() if key in KEYS}
    stages = []
    for number, (entry, algorithm) in enumerate(zip(entries, algorithms, strict=True), start=1):
        with in_stage(label_of(number, algorithm.name)):
            run = prepare(algorithm, _stage_recipe(recipe, number, entry, algorithm, top, config))
            named = dict(run.checked.source)
            check_inputs(run)
            stages.append(StageRun(number, run, entry, named))
    _check_flags(recipe, top, stages, of_run)
    return HybridRun(config, given, stages, bool(resume))


def _check_flags(recipe: Recipe, top: Mapping[str, Any], stages: list[StageRun], of_run: Mapping[str, Any]) -> None:
    """Refuse flags for all stages that change nothing, since every stage with such a key gives its own.

    Raises:
        UserError: Names the flag, and how to write it for one stage.
    """
    for key in top:
        if key in of_run or key in ("model", "stages", "quantization", "judge") or recipe.places.get(key) != f"--{key}":
            continue
        having = [each for each in stages if key in _hints(each.run.algorithm)]
        if having and all(key in each.entry for each in having):
            raise UserError(
                f"--{key} is for stages that don't give their own, and all do; write --stages.{having[0].number}.{key}"
            )


def _entries(recipe: Recipe) -> list[dict[str, Any]]:
    """The stages of a recipe as mappings with `algorithm`; by default DPO, PPO and IPO."""
    given = recipe.values.get("stages")
    if given is None:
        return [{"algorithm": name} for name in DEFAULT_STAGES]
    if not isinstance(given, list) or not given:
        raise UserError(f"{recipe.where('stages')} is a list of stages, such as `- algorithm: dpo`, not {given!r}")
    entries = [{"algorithm": each} if isinstance(each, str) else each for each in given]
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("algorithm"), str):
            raise UserError(f"{recipe.where('stages')}: stage {number} has no algorithm; write `- algorithm: dpo`")
        for key in entry:
            if key in NOT_OF_STAGE:
                instead = "use reference" if key == "ref_model" else "write it at the top of the recipe"
                place = recipe.entry("stages", number, entry).where(key)
                raise UserError(f"{place} is the whole run's, not a stage's; {instead}")
    return entries


def _hints(algorithm: Algorithm) -> dict[str, Any]:
    """Types of the keys of an algorithm's own recipe."""
    return {**field_hints(algorithm.load()[1]), **source_keys(algorithm.needs, algorithm.rows)}


def _stage_recipe(
    recipe: Recipe,
    number: int,
    entry: dict[str, Any],
    algorithm: Algorithm,
    top: Mapping[str, Any],
    config: HybridConfig,
) -> Recipe:
    """The recipe that a stage's own command would get: the stage's keys, and those at the top that it has, too."""
    hints, of_run = _hints(algorithm), field_hints(HybridConfig)
    own = {key: value for key, value in entry.items() if key not in OF_STAGE}
    check_values(recipe.entry("stages", number, {k: v for k, v in entry.items() if k in OF_STAGE}), OF_STAGE, OF_STAGE)
    common = {key: value for key, value in top.items() if key in hints and key not in (*of_run, *own, "stages")}
    if "label" in algorithm.needs:  # its judge compares pairs; the run's judge is independent
        if "judge" in common:
            common["eval_judge"] = common.pop("judge")
        if own.get("judge") is not None:
            common.pop("reward", None)
    folder = str(Path(config.output_dir, f"stage-{number}-{algorithm.name}"))
    stage = recipe.entry("stages", number, {**common, **own, "output_dir": folder, "seed": config.seed})
    stage.places |= {key: recipe.places[key] for key in common if key in recipe.places}
    return stage
