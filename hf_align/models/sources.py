"""Sources of models: a folder, a Hub id, a GGUF folder or an adapter; read without loading weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from peft import PeftConfig
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.hub import cached_file

from hf_align.broken_files import broken_file, file_problem
from hf_align.errors import LoadError, UserError, reason_of
from hf_align.files import ADAPTER_CONFIG, CONFIG, ENSEMBLE
from hf_align.models.finite import check_files, check_loaded
from hf_align.models.gguf import convert_gguf

_LOADED = {"AutoTokenizer": "a tokenizer", "AutoModelForCausalLM": "a language model"}
"""What classes of transformers load, in messages."""


def load_tokenizer(model_id_or_path: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a model or adapter; one without a pad token pads with EOS."""
    path = plain_folder(model_id_or_path)
    adapter = adapter_config(path)
    if adapter is not None and find_file(path, "tokenizer_config.json") is None:
        path = plain_folder(base_of(adapter, path))
    tokenizer = from_pretrained(AutoTokenizer, path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(model_id_or_path: str | os.PathLike[str]) -> Any:
    """The config of a model, or of an adapter's base model."""
    path = plain_folder(model_id_or_path)
    adapter = adapter_config(path)
    return from_pretrained(AutoConfig, path if adapter is None else plain_folder(base_of(adapter, path)))


def from_pretrained(auto_class: Any, path: str, **kwargs: Any) -> Any:
    """`auto_class.from_pretrained`, with one clear sentence if it fails.

    A model with weights that are NaN or infinite is refused.
    A model's own code is never run, nor is the user asked about it: standard input may be a script.
    """
    try:
        loaded = auto_class.from_pretrained(path, trust_remote_code=False, **kwargs)
    except (OSError, ValueError, KeyError, AssertionError, SafetensorError, StrictDataclassError) as error:
        _check_folder(path)
        raise _cannot_load(_LOADED.get(auto_class.__name__, "a model"), path, error) from error
    except (TypeError, AttributeError) as error:
        if _config_problem(path) is None:
            raise
        raise _cannot_load(_LOADED.get(auto_class.__name__, "a model"), path, error) from error
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    if isinstance(model, nn.Module):
        check_loaded(dict(model.named_parameters()), path)
        if kwargs.get("quantization_config") is not None:
            check_files(path)
    return loaded


def check_file(file: Path, path: str) -> None:
    """Refuse a file of weights that is cut off or no such file, before a library reads it without naming it.

    Args:
        file: The file.
        path: The folder or Hub id that it belongs to.

    Raises:
        LoadError: Names the file.
    """
    if (problem := file_problem(file)) is not None:
        raise LoadError(f"{file} is broken: {problem}; download or save the model again.", path)


def check_source(path: str) -> None:
    """Refuse a name without a model or adapter, without loading anything.

    Raises:
        LoadError: There is no such folder or Hub id, or it holds no model.
    """
    _check_folder(path)
    if os.path.isdir(path):
        return
    try:
        cached_file(path, "config.json")
    except OSError as error:
        if find_file(path, "adapter_config.json") is None:
            raise _cannot_load("a model", path, error) from error


def _check_folder(path: str) -> None:
    """Refuse a folder without a model, and a name that is neither a folder nor a possible Hub id."""
    if not os.path.isdir(path):
        if not _may_be_hub_id(path):
            problem = "is a file" if os.path.exists(path) else "doesn't exist"
            raise LoadError(f"'{path}' {problem}; name the folder of a model or its Hub id, like 'user/name'.", path)
    elif is_ensemble(path):
        raise _is_ensemble(path)
    elif not any(next(Path(path).glob(name), None) for name in ("config.json", "adapter_config.json", "*.gguf")):
        raise LoadError(f"'{path}' holds no model: it has no config.json, adapter_config.json or .gguf file.", path)


def is_ensemble(path_or_hub_id: str | os.PathLike[str]) -> bool:
    """Whether a folder or Hub repository holds an ensemble of reward models."""
    return find_file(str(path_or_hub_id), ENSEMBLE) is not None


def _is_ensemble(path: str) -> LoadError:
    return LoadError(
        f"'{path}' holds an ensemble of reward models; load it with RewardEnsemble.from_pretrained, or one member from "
        "its folder (member-0).",
        path,
    )


def _cannot_load(what: str, path: str, error: Exception) -> LoadError:
    if is_ensemble(path):
        return _is_ensemble(path)
    reason = reason_of(error)
    if isinstance(error, SafetensorError) and (broken := _broken_weights(path)) is not None:
        return LoadError(f"{broken[0]} is broken: {broken[1]}; download or save the model again.", path)
    if isinstance(error, StrictDataclassError):  # the reason is in its second line
        reason = f"its config.json is wrong: {' '.join(str(error).split()).partition('. Errors')[0]}"
    if "Padding_idx" in reason:
        reason = "pad_token_id in its config.json is not in its vocabulary; set it to one, or to null"
    if "custom code" in reason:
        reason = "it needs its own code, which is never run; use a model that transformers supports"
    elif (problem := _config_problem(path)) is not None:
        reason = problem
    elif "backend tokenizer" in reason:
        reason = "it has no tokenizer.json or other file of one; save the tokenizer there, too"
    where = "the folder" if os.path.isdir(path) else "the Hub id or folder"
    return LoadError(f"Can't load {what} from {where} '{path}': {reason}", path)


def _config_problem(path: str) -> str | None:
    """Why a config.json is that of no model, or None: transformers' words for it name classes and keys of its own."""
    file = find_file(path, CONFIG)
    if file is None:
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return f"its {CONFIG} is not JSON; download or save the model again"
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind is None:
        return f"its {CONFIG} is no model's, which has a model_type; name the folder of a model"
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return f"its {CONFIG} has the model_type {kind!r}, which this version of transformers doesn't know"
    return None


def _broken_weights(path: str) -> tuple[Path, str] | None:
    """The broken file among a folder's or Hub id's weights, and what is wrong with it."""
    folder: Path | None = Path(path)
    if not os.path.isdir(path):
        config = find_file(path, CONFIG)
        folder = None if config is None else config.parent
    return None if folder is None else broken_file(folder, "*.safetensors")


def _may_be_hub_id(path: str) -> bool:
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return not os.path.exists(path)


def find_file(path: str, name: str) -> Path | None:
    """A file of a model folder or Hub repository, downloaded if necessary; None if there is none.

    Also None if nothing can be loaded from there: loading the model reports why.
    """
    optional = dict.fromkeys(("missing_entries", "gated_repo", "connection_errors"), False)
    try:
        file = cached_file(path, name, **{f"_raise_exceptions_for_{case}": value for case, value in optional.items()})
    except OSError:
        return None
    return None if file is None else Path(file)


def plain_folder(path: str | os.PathLike[str]) -> str:
    """`path` itself, or for a GGUF folder its dequantised copy in the cache."""
    folder = Path(path)
    ggufs = sorted(folder.glob("*.gguf")) if folder.is_dir() and not (folder / "config.json").exists() else []
    if not ggufs:
        return str(path)
    stat = ggufs[0].stat()
    # Files unpacked from an image or archive often have one name, size and time of modification; a change of status
    # (ctime) can't be set back.
    key = f"{ggufs[0].resolve()}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
    key = hashlib.sha256(key.encode()).hexdigest()[:16]
    target = Path(HF_HOME) / "hf_align" / "gguf" / key
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        convert_gguf(folder, target)
    return str(target)


def adapter_config(path: str) -> PeftConfig | None:
    """The adapter's config at a folder or Hub id; None if there is no adapter."""
    file = Path(path) / ADAPTER_CONFIG
    if os.path.isdir(path):
        try:
            return PeftConfig.from_pretrained(path) if file.exists() else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise LoadError(f"{file} is not an adapter's config ({reason}); save the adapter again.", path) from error
    try:
        return PeftConfig.from_pretrained(path)
    except (OSError, ValueError):
        return None


def base_of(adapter: PeftConfig, path: str) -> str:
    """The base model named by the adapter at `path`.

    Raises:
        UserError: The config has no base name, or an invalid one.
    """
    name: Any = adapter.base_model_name_or_path
    if not name:
        raise UserError(
            f"The adapter in {path} doesn't name its base model; set base_model_name_or_path in adapter_config.json."
        )
    if not isinstance(name, str):
        raise UserError(
            f"The adapter in {path} names {name!r} as its base model; set base_model_name_or_path in {ADAPTER_CONFIG} "
            "to a folder or Hub id."
        )
    return name
