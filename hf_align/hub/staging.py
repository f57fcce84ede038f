"""The folder that the Hub gets: exactly the model's own files, none of which names a path of this machine.

Weights are hard links where the file system has them, so a stage costs no space, and a checkpoint that is deleted while
it is uploaded stays readable.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from hf_align.errors import UserError
from hf_align.files import (
    ADAPTER_CONFIG,
    CONFIG,
    REWARD_CONFIG,
    REWARD_HEAD,
    VALUE_ADAPTER_FOLDER,
    VALUE_HEAD,
    VALUE_MODEL_FOLDER,
)
from hf_align.model_cards.names import hub_id

WEIGHTS = (
    *(CONFIG, "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    *(ADAPTER_CONFIG, "adapter_model.safetensors"),
    *(REWARD_CONFIG, REWARD_HEAD, VALUE_HEAD, f"{VALUE_ADAPTER_FOLDER}/*", f"{VALUE_MODEL_FOLDER}/*"),
)
"""What a model of any kind is made of. Those of these that a repository has and a new push hasn't are removed there."""
TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template.*", "additional_chat_templates/*", "preprocessor_config.json", "processor_config.json"),
)
TEXTS = ("README.md", "training_curves.png", "LICENSE*", "NOTICE*")
NOT_IN_CHECKPOINTS = ("README.md", "training_args.bin")
LOCAL_NAMES = ("_name_or_path", "name_or_path")


def new_stage(folder: str | os.PathLike[str]) -> Path:
    """An empty folder beside `folder`, so that files can be linked, else wherever temporary folders are."""
    folder = Path(folder).resolve()
    try:
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.push-", dir=folder.parent))
    except OSError:
        return Path(tempfile.mkdtemp(prefix="hf-align-push-"))


def model_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """The files of a model folder that make up the model, its tokenizer and its card, relative to it.

    Everything else stays: checkpoints, optimizers, logs, metrics, pickles.
    """
    folder = Path(folder)
    patterns = (*WEIGHTS, *TOKENIZER, *TEXTS)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if any(pattern.startswith(f"{name}/") for pattern in patterns):
                _check_link(folder, path)
            continue
        # `*` of a pattern would also match into folders: only those that a pattern names are entered.
        same_depth = (pattern for pattern in patterns if pattern.count("/") == name.count("/"))
        if any(fnmatchcase(name, pattern) for pattern in same_depth):
            _check_link(folder, path)
            yield path.relative_to(folder)


def _check_link(folder: Path, path: Path) -> None:
    """Refuse links to folders, which would be left out, to nothing, and to what lies outside of the folder."""
    if path.is_symlink():
        if not path.exists():
            raise UserError(f"{path} is a link to nothing; put the file in its place, or remove it.")
        if path.is_dir():
            raise UserError(f"{path} is a link to a folder; put a copy of that in its place, or remove it.")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{path} is a link to a file outside {folder}, and nothing outside a folder is pushed; put a copy in its "
            "place, or remove it."
        )


def stage_model(folder: str | os.PathLike[str], stage: Path, base_model: str | None = None) -> None:
    """Put a model folder's files into `stage`, with adapters that name their base model by its Hub id.

    Args:
        folder: A saved model or adapter.
        stage: Gets the files.
        base_model: The base model's Hub id. Default: what the adapter itself names, if that is one.

    Raises:
        UserError: If the folder holds no model, or its adapter's base model is local and `base_model` isn't given.
    """
    folder = Path(folder)
    if not any((folder / name).exists() for name in (CONFIG, ADAPTER_CONFIG)):
        raise UserError(f"{folder} holds no model: it has neither config.json nor adapter_config.json.")
    if not any(folder.glob("*.safetensors")):  # a push would take those away that the repository has
        raise UserError(f"{folder} holds no weights: it has no .safetensors file.")
    for name in model_files(folder):
        link_or_copy(folder / name, stage / name)
    name_bases(stage, folder, base_model)


def stage_checkpoint(folder: str | os.PathLike[str], stage: Path, base_model: str | None = None) -> None:
    """Put a whole checkpoint into `stage`, optimizer and random states included, to resume from on any machine."""
    folder = Path(folder)
    for path in sorted(folder.rglob("*")):
        if path.name not in NOT_IN_CHECKPOINTS and (path.is_file() or path.is_symlink()):
            _check_link(folder, path)
            link_or_copy(path, stage / path.relative_to(folder))
    name_bases(stage, folder, base_model)
    state = stage / "trainer_state.json"
    if state.exists():
        values = json.loads(state.read_text(encoding="utf-8"))
        if values.get("best_model_checkpoint"):
            values["best_model_checkpoint"] = Path(values["best_model_checkpoint"]).name
        rewrite(state, values)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link, or a copy where there are none; links are followed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def rewrite(path: Path, values: object) -> None:
    """Replace a staged JSON file; the one it may be a link to stays as it is."""
    path.unlink()
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def base_models(folder: str | os.PathLike[str]) -> dict[Path, str]:
    """The base model's name in each adapter of a folder: `{adapter_config.json: name}`."""
    return {
        path: json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path") or ""
        for path in sorted(Path(folder).rglob(ADAPTER_CONFIG))
    }


def name_bases(stage: Path, folder: Path, base_model: str | None) -> None:
    """Let staged adapters name their base models by Hub ids, and take local names out of staged configs.

    Args:
        stage: With a model.
        folder: Where it came from, for the message.
        base_model: Hub id of the base model that is local.

    Raises:
        UserError: If one is local and `base_model` isn't given.
    """
    bases = base_models(stage)
    main = bases.get(stage / ADAPTER_CONFIG)
    for path, name in bases.items():
        hub_name = hub_id(name)
        if base_model and (name == main or (main is None and hub_name is None)):
            hub_name = base_model
        if hub_name is None:
            raise UserError(
                f"The adapter in {folder} was trained on a local model ('{name}'), which nobody else has: name the "
                "same model on the Hub with base_model (--base-model ORG/NAME), or push merged weights (--merge)."
            )
        if hub_name != name:
            rewrite(path, json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": hub_name})
    for path in stage.rglob("*config.json"):
        if path.name in (CONFIG, "tokenizer_config.json"):
            values = json.loads(path.read_text(encoding="utf-8"))
            if local := [field for field in LOCAL_NAMES if field in values and hub_id(values[field]) is None]:
                rewrite(path, {field: value for field, value in values.items() if field not in local})
