"""Staging for the Hub: exactly the model's files, none of which names a path on this machine.

Weights are hard-linked where the file system allows it, so a stage costs no space, and a checkpoint deleted during the
upload stays readable.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from hf_align.errors import UserError
from hf_align.files import (
    ADAPTER_CONFIG,
    AGGREGATOR,
    BASE_FINGERPRINT,
    CONFIG,
    ENSEMBLE,
    REWARD_CODE,
    REWARD_FILES,
    VALUE_ADAPTER_FOLDER,
    VALUE_HEAD,
    VALUE_MODEL_FOLDER,
)
from hf_align.model_cards.names import hub_id

WEIGHTS = (
    *(CONFIG, "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    *(ADAPTER_CONFIG, "adapter_model.safetensors", BASE_FINGERPRINT),
    *(*REWARD_FILES, VALUE_HEAD, f"{VALUE_ADAPTER_FOLDER}/*", f"{VALUE_MODEL_FOLDER}/*"),
)
"""Patterns of the files of any kind of model. A push removes matching files that the stage lacks."""
TOKENIZER = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template.*", "additional_chat_templates/*", "preprocessor_config.json", "processor_config.json"),
)
ENSEMBLES = (ENSEMBLE, AGGREGATOR, *(f"member-*/{pattern}" for pattern in (*WEIGHTS, *TOKENIZER)))
"""Patterns of an ensemble's files; each member's folder is a model's."""
TEXTS = ("README.md", "training_curves.png", "over_optimization.png", "LICENSE*", "NOTICE*")
READ_FOR_CARDS = ("model_card.json",)
NOT_IN_CHECKPOINTS = ("README.md", "training_args.bin")
LOCAL_NAMES = ("_name_or_path", "name_or_path")


def new_stage(folder: str | os.PathLike[str]) -> Path:
    """An empty folder beside `folder`, so that files can be linked, or else in the system's temporary folder."""
    folder = Path(folder).resolve()
    try:
        return Path(tempfile.mkdtemp(prefix=f".{folder.name}.push-", dir=folder.parent))
    except OSError:
        return Path(tempfile.mkdtemp(prefix="hf-align-push-"))


def model_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Relative paths of the files that make up a folder's model, its tokenizer and its card.

    Everything else is not pushed: checkpoints, optimizers, logs, metrics, pickles.
    """
    folder = Path(folder)
    patterns = (*WEIGHTS, *TOKENIZER, *TEXTS, *(ENSEMBLES if (folder / ENSEMBLE).exists() else ()))
    folders = {pattern.rpartition("/")[0] for pattern in patterns if "/" in pattern}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if any(fnmatchcase(name, pattern) for pattern in folders):
                check_link(folder, path)
            continue
        # A pattern's `*` would also match `/`: only folders that a pattern names are entered.
        same_depth = (pattern for pattern in patterns if pattern.count("/") == name.count("/"))
        if any(fnmatchcase(name, pattern) for pattern in same_depth):
            check_link(folder, path)
            yield path.relative_to(folder)


def check_link(folder: Path, path: Path) -> None:
    """Refuse links to folders, which would be skipped, dangling links, and links that lead out of the folder."""
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
    """Stage a model folder's files; adapters name their base model by its Hub id.

    Args:
        folder: A saved model or adapter.
        stage: Destination folder.
        base_model: The base model's Hub id. Default: the adapter's own entry, if that is a Hub id.

    Raises:
        UserError: The folder holds no model, or its adapter's base model is local and `base_model` isn't given.
    """
    folder = Path(folder)
    members = sorted(folder.glob("member-*")) if (folder / ENSEMBLE).exists() else []
    for part in members or [folder]:
        if not any((part / name).exists() for name in (CONFIG, ADAPTER_CONFIG)):
            raise UserError(f"{part} holds no model: it has neither config.json nor adapter_config.json.")
        if not any(part.glob("*.safetensors")):  # a push would remove the repository's weights
            raise UserError(f"{part} holds no weights: it has no .safetensors file.")
    for name in model_files(folder):
        link_or_copy(folder / name, stage / name)
    _check_code(stage, folder)
    name_bases(stage, folder, base_model)


def _check_code(stage: Path, folder: Path) -> None:
    """Refuse the code that travels with reward models if it isn't this version's: whoever loads the model runs it.

    Raises:
        UserError: It differs.
    """
    ours = resources.files("hf_align") / "models" / REWARD_CODE
    for path in stage.rglob(REWARD_CODE):
        if path.read_bytes() != ours.read_bytes():
            raise UserError(
                f"{folder / path.relative_to(stage)} isn't the file that this version of hf-align saves, and it would "
                "run where the model is loaded; save the model again with load_reward_model(...).save_pretrained(...)."
            )


def stage_checkpoint(folder: str | os.PathLike[str], stage: Path, base_model: str | None = None) -> None:
    """Stage a whole checkpoint, optimizer and random states included, to resume from on any machine."""
    folder = Path(folder)
    for path in sorted(folder.rglob("*")):
        if path.name not in NOT_IN_CHECKPOINTS and (path.is_file() or path.is_symlink()):
            check_link(folder, path)
            link_or_copy(path, stage / path.relative_to(folder))
    _check_code(stage, folder)
    name_bases(stage, folder, base_model)
    state = stage / "trainer_state.json"
    if state.exists():
        values = json.loads(state.read_text(encoding="utf-8"))
        if values.get("best_model_checkpoint"):
            values["best_model_checkpoint"] = Path(values["best_model_checkpoint"]).name
        rewrite(state, values)


def check_links(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder with links to files outside that a push would send or read for the card.

    Raises:
        UserError: Names the link.
    """
    folder = Path(folder)
    for name in (*model_files(folder), *filter(lambda name: (folder / name).is_symlink(), READ_FOR_CARDS)):
        check_link(folder, folder / name)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, or a copy if the file system has none; links are followed once, so a later one stays a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)


def staged_files(stage: Path) -> dict[str, Path]:
    """The files of a stage by their names in the repository.

    Raises:
        UserError: One is a link; whatever it led to when it was checked, it may lead elsewhere now.
    """
    files = {}
    for path in sorted(stage.rglob("*")):
        if path.is_symlink():
            raise UserError(f"{path.relative_to(stage)} became a link while the push was prepared; push again.")
        if path.is_file():
            files[path.relative_to(stage).as_posix()] = path
    return files


def rewrite(path: Path, values: object) -> None:
    """Replace a staged JSON file, without changing the file it may be linked to."""
    path.unlink()
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def base_models(folder: str | os.PathLike[str]) -> dict[Path, str]:
    """The base model's name in each adapter of a folder: `{adapter_config.json: name}`."""
    return {
        path: str(json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path") or "")
        for path in sorted(Path(folder).rglob(ADAPTER_CONFIG))
    }


def name_bases(stage: Path, folder: Path, base_model: str | None) -> None:
    """Replace local base model names in staged adapters by Hub ids, and remove local names from staged configs.

    Args:
        stage: Folder with a staged model.
        folder: Its source folder, for the message.
        base_model: Hub id of the base model, if the adapter names a local one.

    Raises:
        UserError: A base model is local and `base_model` isn't given.
    """
    bases = base_models(stage)
    main = bases.get(stage / ADAPTER_CONFIG)
    local = sorted({name for name in bases.values() if hub_id(name) is None})
    if base_model and main is None and len(local) > 1:
        raise UserError(
            f"The adapters in {folder} were trained on different local models ({', '.join(local)}), and base_model "
            "names one; set base_model_name_or_path in each adapter_config.json to its Hub id, or push members alone."
        )
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
