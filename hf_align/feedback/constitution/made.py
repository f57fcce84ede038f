"""From prompts to data: both halves, their rows and figures, and the folder with all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from datasets import Dataset

from hf_align.collators.rows import Message, content_of
from hf_align.data.parts import Parts, digest
from hf_align.errors import UserError
from hf_align.feedback.collection.domains import Classifier
from hf_align.feedback.collection.pools import read_pool
from hf_align.feedback.collection.writers import Writer, open_model
from hf_align.feedback.constitution.compare import by_principles, sample_pairs, vote
from hf_align.feedback.constitution.config import ConstitutionConfig
from hf_align.feedback.constitution.conversation import as_messages, ask_critique, ask_revision
from hf_align.feedback.constitution.draws import draw_principles, split_halves
from hf_align.feedback.constitution.figures import (
    describe_comparisons,
    describe_revisions,
    figure_lines,
    why_no_preferences,
)
from hf_align.feedback.constitution.principles import Constitution
from hf_align.feedback.constitution.revise import revise_all
from hf_align.feedback.constitution.rows import Row, Rows, make_rows
from hf_align.feedback.constitution.work import Work, replaced
from hf_align.feedback.judges.named import NamedJudge
from hf_align.feedback.records import Prompt
from hf_align.files import finite, write_json, write_problem, write_text
from hf_align.model_cards.constitution import save_constitution_card
from hf_align.models.quantized import Quantization
from hf_align.progress import Progress, Silent
from hf_align.rewards.judges import Judge
from hf_align.version import __version__

SFT, PREFERENCES, REVISIONS, STEPS = "sft.jsonl", "preferences.jsonl", "revision_pairs.jsonl", "steps.jsonl"
STATISTICS, USED, PARTS = "statistics.json", "constitution.yaml", "parts"
"""Files of an output folder, and the folder of finished steps in it."""


@dataclass(frozen=True)
class ConstitutionData:
    """Data that a constitution made.

    Attributes:
        rows: Rows by file.
        figures: Statistics, as JSON has them.
    """

    rows: Rows
    figures: Mapping[str, Any]

    def __str__(self) -> str:
        return "\n".join(figure_lines(self.figures, self.rows))

    @property
    def problem(self) -> str | None:
        """Why there are no preferences though prompts were for comparisons, and what to do; None where there are."""
        return None if self.rows.preferences else why_no_preferences(self.figures)


@dataclass(frozen=True)
class Halves:
    """Prompts in messages, each once, in an order that their rows' order doesn't matter for.

    Attributes:
        sft: To revise responses to.
        preferences: To compare responses to.
        repeated: Rows whose prompt another row has.
    """

    sft: Sequence[Prompt]
    preferences: Sequence[Prompt]
    repeated: int


def read_halves(
    dataset: Dataset | list[dict[str, Any]], config: ConstitutionConfig, classify: Classifier | None = None
) -> Halves:
    """Read the prompts of a data set as messages and split them.

    Args:
        dataset: As `read_pool` takes it.
        config: `sft_share` and `seed`.
        classify: Names the domain of prompts whose row has none. Default: `guess_domain`, by key words.

    Raises:
        UserError: A row has no usable prompt, or one that ends with a message of the assistant.
    """
    pool = read_pool(dataset, classify)
    read = [each.prompt for each in pool.prompts.values()]
    prompts = [Prompt(as_messages(each), each.pool, each.domain, each.columns) for each in read]
    for each in prompts:
        last = cast(list[Message], each.content)[-1]
        if last["role"] in ("assistant", "system"):
            shown = " ".join(content_of(last).split())[:60]
            raise UserError(
                f"prompts: one ends with a message of the {last['role']} ({shown!r}), which leaves nothing to respond "
                "to; end it with the user's"
            )
    different = {prompt.id: prompt for prompt in reversed(prompts)}
    ordered = [different[id] for id in sorted(different)]
    sft, preferences = split_halves(ordered, config.sft_share, config.seed)
    return Halves(sft, preferences, pool.repeated + len(prompts) - len(different))


def apply_constitution(
    constitution: Constitution,
    prompts: Dataset | list[dict[str, Any]] | Halves,
    model: Any,
    config: ConstitutionConfig | None = None,
    *,
    judge: Judge | None = None,
    preference_model: Any = None,
    output_dir: str | os.PathLike[str] | None = None,
    parts: Parts | None = None,
    quantization: Quantization = None,
    license: str | None = None,
    progress: Progress | None = None,
) -> ConstitutionData:
    """Make demonstrations and preferences by a constitution.

    One half of the prompts gets a response that is criticised and revised by several principles in turn; the other half
    gets several responses, which a judge compares by the principles.

    Args:
        constitution: The constitution.
        prompts: Rows with a `prompt` (text or messages), or halves from `read_halves`.
        model: Who responds, criticises and revises: Hub id, folder, a loaded model, or a function
            `list[messages] -> list[text]`; or a mapping from its name to one of these.
        config: Options.
        judge: Who compares: a `LanguageModelJudge`, or a `FunctionJudge` of `f(prompt, first, second, principle)`, is
            asked by the question of each principle, another judge once a pair. Needed unless `config.sft_share` is 1.
        preference_model: Who writes the responses to compare, such as the model trained on the demonstrations.
            Default: `model`.
        output_dir: Folder for the data, its card and the finished steps, by which a killed call goes on. Default: none.
        parts: Where finished steps are kept. Default: in `output_dir`.
        quantization: Of models that are loaded.
        license: Licence of the data for the card.
        progress: Receiver of progress.

    Raises:
        UserError: Prompts, model or judge can't be used, or the folder holds data of something else.

    Example:
        >>> from hf_align.feedback import Constitution, ConstitutionConfig, FunctionJudge, apply_constitution
        >>> def echo(conversations):
        ...     return [f"Did you say: {messages[-1]['content']}" for messages in conversations]
        >>> prompts = [{"prompt": f"Say {n}."} for n in range(4)]
        >>> config = ConstitutionConfig(sft_share=1, revisions=1, examples=0)
        >>> data = apply_constitution(Constitution.default(), prompts, echo, config)
        >>> len(data.rows.sft), data.figures["sft"]["outcomes"]["revised"]
        (4, 0)
    """
    config, progress = config or ConstitutionConfig(), progress or Silent()
    halves = prompts if isinstance(prompts, Halves) else read_halves(prompts, config)
    if halves.preferences and judge is None:
        raise UserError(
            f"judge is missing: {len(halves.preferences)} prompts are for comparisons; give a judge, or sft_share 1"
        )
    writer = open_writer(model, quantization, "model")
    other = writer if preference_model is None else open_writer(preference_model, quantization, "preference_model")
    check_room(constitution, halves, writer, other, config)
    names = {"model": writer.name, "preference_model": other.name, "judge": None if judge is None else judge.name}
    ids = [[each.id for each in half] for half in (halves.sft, halves.preferences)]
    made_of = digest(
        [_facts(constitution, config), ids, names, judge.values if isinstance(judge, NamedJudge) else None]
    )
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        check_folder(folder, made_of)
    parts = parts or Parts(None if folder is None else folder / PARTS)
    revised = revise_all(Work(constitution, config, writer, parts), halves.sft, progress)
    comparing = Work(constitution, config, other, parts)
    compared = sample_pairs(comparing, halves.preferences, progress)
    biases = {} if judge is None else vote(comparing, compared.pairs, by_principles(judge), progress)
    rows = make_rows(revised, compared, config, **names)
    figures = {
        "prompts": {"sft": len(halves.sft), "preferences": len(halves.preferences), "repeated": halves.repeated},
        "rows": {"sft": len(rows.sft), "preferences": len(rows.preferences), "revision_pairs": len(rows.revisions)},
        "left_out": {reason: count for reason, count in rows.left_out.items() if count},
        "sft": describe_revisions(revised, constitution),
        "preferences": describe_comparisons(compared, constitution, biases),
        **names,
        **_facts(constitution, config),
        "made_of": made_of,
        "hf_align": __version__,
    }
    data = ConstitutionData(rows, figures)
    if folder is not None:
        save_data(data, constitution, folder, license=license)
    return data


def check_room(
    constitution: Constitution, halves: Halves, writer: Writer, other: Writer, config: ConstitutionConfig
) -> None:
    """Refuse prompts that leave no room for a response, its critique and the revision; no weights are loaded.

    Raises:
        UserError: See above; the message has the lengths.
    """
    if halves.preferences:
        other.check(halves.preferences, config.max_new_tokens)
    longest: list[Prompt] = []
    for prompt in halves.sft:
        drawn = draw_principles(constitution.principles, prompt, config.revisions, config.seed, "revision")
        for principle in drawn:
            asked = ask_critique(constitution, config.examples, cast(Any, prompt.content), "", principle)
            longest.append(replaced(prompt, ask_revision(asked, "", principle)))
    if not longest:
        return
    try:
        writer.check(longest, 2 * config.max_new_tokens + config.max_critique_tokens)
    except UserError as error:
        raise UserError(
            f"{error} (a revision needs room for the examples, the response, its critique and itself: 2 max_new_tokens "
            "+ max_critique_tokens beside the prompt; lower these, or examples)"
        ) from None


def check_folder(folder: Path, made_of: str) -> None:
    """Refuse a folder with data that was made of something else.

    Raises:
        UserError: It holds such data, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir: {folder} is a file; choose another name")
    if (problem := write_problem(folder / STATISTICS)) is not None:
        raise UserError(f"output_dir: {folder} can't be written: {problem}")
    try:
        earlier = json.loads((folder / STATISTICS).read_text(encoding="utf-8")).get("made_of")
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError):
        earlier = None
    if earlier != made_of:
        raise UserError(
            f"output_dir: {folder} holds data that was made of other prompts, models or options, or by another judge; "
            "choose another folder, or delete that one"
        )


def save_data(data: ConstitutionData, constitution: Constitution, folder: Path, *, license: str | None = None) -> None:
    """Write rows, steps, constitution, figures and card; a file without rows isn't written.

    Raises:
        UserError: The disk fails.
    """
    rows = data.rows
    files = {SFT: rows.sft, PREFERENCES: rows.preferences, REVISIONS: rows.revisions, STEPS: rows.steps}
    try:
        for name, its in files.items():
            if its:
                write_text(folder / name, "".join(_line(row) for row in its))
        write_text(folder / USED, dump_constitution(constitution))
        save_constitution_card(folder, data.figures, {name: len(its) for name, its in files.items() if its}, license)
        write_json(folder / STATISTICS, data.figures)
    except OSError as error:
        raise UserError(f"output_dir: {folder} can't be written: {error.strerror or error}") from None


def dump_constitution(constitution: Constitution) -> str:
    """A constitution as YAML, which `Constitution.from_yaml` reads back."""
    plain = constitution.to_dict()
    for kind in ("principles", "examples"):
        plain[kind] = [{key: value for key, value in each.items() if value not in ("", [])} for each in plain[kind]]
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)


def open_writer(model: Any, quantization: Quantization, field: str) -> Writer:
    """Who writes, given as `apply_constitution` takes it; a model is checked but not loaded yet.

    Raises:
        UserError: It can't write.
    """
    if not isinstance(model, Mapping):
        return open_model(model, None, quantization, field=field)
    if len(model) != 1:
        raise UserError(f"{field} names {len(model)} models; give one")
    ((name, named),) = model.items()
    return open_model(named, name, quantization, field=field)


def _facts(constitution: Constitution, config: ConstitutionConfig) -> dict[str, Any]:
    return {"constitution": digest(constitution.to_dict()), "config": asdict(config)}


def _line(row: Row) -> str:
    return json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n"
