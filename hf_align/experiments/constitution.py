"""The recipe of `hf-align constitution`: prompts, a model, a judge and a constitution."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from hf_align.errors import UserError
from hf_align.experiments.collection import SPLITS, load_source
from hf_align.experiments.recipe import Recipe, check_given, check_values, field_hints
from hf_align.feedback import Constitution, ConstitutionConfig, apply_constitution
from hf_align.feedback.constitution.draws import draw_principles
from hf_align.feedback.constitution.made import ConstitutionData, Halves, check_room, open_writer, read_halves
from hf_align.feedback.judges.named import NamedJudge, check_judge
from hf_align.progress import Progress
from hf_align.rewards.named import read_function

CONSTITUTION_KEYS: dict[str, Any] = {
    "output_dir": str,
    "prompts": str,
    "model": str,
    "judge": str | list | dict | None,
    "preference_model": str | None,
    "constitution": str | None,
    "classify": str | None,
    "split": str | None,
    "limit": int | None,
    "license": str | None,
    "quantization": Literal["8bit", "4bit"] | None,
}
"""Keys of a recipe besides the fields of `ConstitutionConfig`."""
REQUIRED = ("output_dir", "prompts", "model")
OF_OTHER_QUESTIONS = ("prompt", "principle", "bias", "calibrate", "calibration_pairs")
"""Keys of a judge that a constitution has no use for."""


@dataclass(frozen=True)
class ConstitutionRun:
    """A checked recipe, before anything is loaded.

    Attributes:
        recipe: The recipe, for its keys' places.
        values: Values of `CONSTITUTION_KEYS`.
        config: Options.
        constitution: The constitution.
        halves: The prompts.
        judge: The judge, if one is named.
        model: Who writes, as `apply_constitution` takes it.
        preference_model: Who writes the responses to compare; None: the same.
    """

    recipe: Recipe
    values: dict[str, Any]
    config: ConstitutionConfig
    constitution: Constitution
    halves: Halves
    judge: NamedJudge | None
    model: Any
    preference_model: Any

    def plan(self) -> list[tuple[str, str]]:
        """Names and figures of what the recipe asks for; loads no weights.

        Raises:
            UserError: A model doesn't exist, or a prompt leaves it no room.
        """
        config, halves, constitution = self.config, self.halves, self.constitution
        writer = open_writer(self.model, self.values["quantization"], self.recipe.where("model"))
        other = writer
        if self.preference_model is not None:
            place = self.recipe.where("preference_model")
            other = open_writer(self.preference_model, self.values["quantization"], place)
        check_room(constitution, halves, writer, other, config)
        domains = Counter(str(prompt.domain) for prompt in (*halves.sft, *halves.preferences)).most_common()
        drawn = [
            draw_principles(constitution.principles, prompt, config.revisions, config.seed, "revision")
            for prompt in halves.sft
        ]
        times = Counter(principle.id for each in drawn for principle in each)
        principles = ", ".join(f"{each.id} {times[each.id]:,}" for each in constitution.principles)
        return [
            ("prompts to revise", f"{len(halves.sft):,} ({halves.repeated:,} repeated rows left out)"),
            ("prompts to compare", f"{len(halves.preferences):,}"),
            ("domains", ", ".join(f"{name} {count:,}" for name, count in domains)),
            ("constitution", f"{constitution.name}: {len(constitution.principles):,} principles"),
            ("steps by principle", principles),
            ("texts at most", f"{self._texts(sum(map(len, drawn))):,}"),
            ("model", writer.name),
            *([("responses to compare by", other.name)] if other is not writer else []),
            ("judge", "none" if self.judge is None else self.judge.name),
        ]

    def _texts(self, steps: int) -> int:
        """First responses, a critique and a revision for each step, and responses to compare."""
        return len(self.halves.sft) + 2 * steps + self.config.responses_per_prompt * len(self.halves.preferences)

    def execute(self, progress: Progress) -> ConstitutionData:
        """Make the data.

        Raises:
            UserError: Something can't be loaded or used.
            KeyboardInterrupt: After Ctrl-C; every finished step is stored.
        """
        values = self.values
        return apply_constitution(
            self.constitution,
            self.halves,
            self.model,
            self.config,
            judge=self.judge,
            preference_model=self.preference_model,
            output_dir=values["output_dir"],
            quantization=values["quantization"],
            license=values["license"],
            progress=progress,
        )


def prepare_constitution(recipe: Recipe) -> ConstitutionRun:
    """Check a recipe and read its data.

    Raises:
        UserError: A key is unknown, missing or has a wrong value, or prompts, constitution or judge can't be read.
    """
    values = check_values(recipe, {**CONSTITUTION_KEYS, **field_hints(ConstitutionConfig)}, CONSTITUTION_KEYS)
    check_given(values, REQUIRED)
    sources = {key: values.pop(key, None) for key in CONSTITUTION_KEYS}
    config = ConstitutionConfig(**values)
    path = sources["constitution"]
    constitution = Constitution.default() if path is None else Constitution.from_yaml(path)
    judge = None if sources["judge"] is None else _judge(sources["judge"], recipe.where("judge"))
    models = [_model(sources[key], recipe.where(key)) for key in ("model", "preference_model")]
    classify = sources["classify"]
    named = None if classify is None else read_function(classify, recipe.where("classify"))
    splits = (sources["split"],) if sources["split"] else SPLITS
    rows = load_source(sources["prompts"], "prompts", splits, config.seed)
    if (limit := sources["limit"]) is not None:
        if limit < 1:
            raise UserError(f"{recipe.where('limit')} is {limit}; give a number of rows, from 1")
        rows = rows.select(range(min(limit, len(rows))))
    halves = read_halves(rows, config, named)
    if halves.preferences and judge is None:
        raise UserError(
            f"judge is missing: {len(halves.preferences):,} prompts are for comparisons; write `judge: ...` in the "
            "recipe or pass --judge, or give sft_share 1"
        )
    return ConstitutionRun(recipe, sources, config, constitution, halves, judge, *models)


def _judge(value: Any, place: str) -> NamedJudge:
    """The judge, without keys that the constitution's own questions would make void."""
    judge = check_judge(value, place)
    if void := [key for key in OF_OTHER_QUESTIONS if judge.values.get(key) is not None]:
        raise UserError(
            f"{place}: leave out {' and '.join(void)}: a constitution asks its own question for each principle, and "
            "takes the position bias of each out itself (calibrate in the recipe)"
        )
    return judge


def _model(value: str | None, place: str) -> Any:
    """A model's name, or a function under its name in the recipe."""
    if value is None:
        return None
    source, _, name = value.rpartition(":")
    return {value: read_function(value, place)} if source and name.isidentifier() else value
