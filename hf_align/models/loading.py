"""Loading policies and reward models: plain or quantised, with or without LoRA, from the Hub, a folder or GGUF."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub.constants import HF_HOME
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file

from hf_align.errors import LoadError, UserError

if TYPE_CHECKING:
    from hf_align.models.reward_model import RewardModel

Quantization = Literal["8bit", "4bit"] | BitsAndBytesConfig | None
Lora = LoraConfig | bool | None


def load_policy(
    model_id_or_path: str | os.PathLike[str],
    *,
    quantization: Quantization = None,
    lora: Lora = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> PreTrainedModel | PeftModel:
    """Load a causal language model to train or to sample from.

    Args:
        model_id_or_path: A Hub id, a model folder, a folder with one .gguf file (dequantised once into the cache), or
            an adapter's Hub id or folder (its base model is loaded with it).
        quantization: "8bit" or "4bit" (NF4, double quantisation) through bitsandbytes, on GPU or CPU; or a
            `BitsAndBytesConfig`. Default: none.
        lora: `True` for rank 16 on all linear layers, a `LoraConfig`, or None. Adapters are always float32.
        dtype: Of unquantised weights. "auto": the checkpoint's own, or float32 where this machine computes in float32.
        device_map: As in `from_pretrained`. Default: the GPU of this process if the weights are quantised and there
            is one, else CPU; trainers place models themselves.

    Raises:
        UserError: If nothing can be loaded from there, or `lora` is given for what already is an adapter.
    """
    path = _plain_folder(model_id_or_path)
    adapter = _adapter_config(path)
    if adapter is not None and lora:
        raise UserError(f"{path} already is an adapter; leave out lora (peft_config), or merge it into its base first.")
    base_path = _plain_folder(_base_of(adapter, path)) if adapter is not None else path
    kwargs = loading_arguments(quantization, dtype, device_map)
    model = from_pretrained(AutoModelForCausalLM, base_path, **kwargs)
    keep_unpacked(model)
    if adapter is not None:
        return PeftModel.from_pretrained(model, path, is_trainable=True)
    return add_lora(model, lora, TaskType.CAUSAL_LM) if lora else model


def load_reward_model(
    path_or_hub_id: str | os.PathLike[str],
    *,
    quantization: Quantization = None,
    lora: Lora = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> RewardModel:
    """Load a reward model, whether saved as a full model or as an adapter; arguments as in `load_policy`.

    A language model without a reward head gets a new one (see `RewardModelConfig`), which a warning says.
    """
    from hf_align.models.reward_model import RewardModel

    return RewardModel.from_pretrained(
        path_or_hub_id, quantization=quantization, lora=lora, dtype=dtype, device_map=device_map
    )


def load_tokenizer(model_id_or_path: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model or adapter; one without a pad token pads with EOS."""
    path = _plain_folder(model_id_or_path)
    adapter = _adapter_config(path)
    if adapter is not None and find_file(path, "tokenizer_config.json") is None:
        path = _plain_folder(_base_of(adapter, path))
    tokenizer = from_pretrained(AutoTokenizer, path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(model_id_or_path: str | os.PathLike[str]) -> Any:
    """The config of a model, or of an adapter's base model."""
    path = _plain_folder(model_id_or_path)
    adapter = _adapter_config(path)
    return from_pretrained(AutoConfig, path if adapter is None else _plain_folder(_base_of(adapter, path)))


def from_pretrained(auto_class: Any, path: str, **kwargs: Any) -> Any:
    """`auto_class.from_pretrained`, with one clear sentence when there is nothing to load."""
    try:
        return auto_class.from_pretrained(path, **kwargs)
    except (OSError, ValueError, KeyError) as error:
        _check_folder(path)
        raise _cannot_load(auto_class.__name__, path, error) from error


def check_source(path: str) -> None:
    """Refuse a name behind which there is no model or adapter, without loading one.

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
    """Refuse a folder without a model, and what is neither a folder nor could be a Hub id."""
    if not os.path.isdir(path):
        if not _may_be_hub_id(path):
            there = "is a file" if os.path.exists(path) else "doesn't exist"
            raise LoadError(f"'{path}' {there}; name the folder of a model or its Hub id, like 'user/name'.", path)
    elif not any(next(Path(path).glob(name), None) for name in ("config.json", "adapter_config.json", "*.gguf")):
        raise LoadError(f"'{path}' holds no model: it has no config.json, adapter_config.json or .gguf file.", path)


def _cannot_load(what: str, path: str, error: Exception) -> LoadError:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    where = "the folder" if os.path.isdir(path) else "the Hub id or folder"
    return LoadError(f"Can't load {what} from {where} '{path}': {reason}", path)


def _may_be_hub_id(path: str) -> bool:
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return not os.path.exists(path)


def find_file(path: str, name: str) -> Path | None:
    """A file of a model folder or of a Hub repository, downloaded if need be; None if there is none.

    None, too, if nothing can be loaded from there at all: loading the model says why.
    """
    optional = dict.fromkeys(("missing_entries", "gated_repo", "connection_errors"), False)
    try:
        found = cached_file(path, name, **{f"_raise_exceptions_for_{case}": value for case, value in optional.items()})
    except OSError:
        return None
    return None if found is None else Path(found)


def compute_dtype() -> torch.dtype:
    """The dtype this machine is fast at: bfloat16, else float16 on a GPU, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return torch.bfloat16
    return torch.float32


def choose_precision(args: Any) -> None:
    """Settle `bf16=None` of training arguments: bfloat16 where the machine is fast at it, else float16 on GPUs.

    Args:
        args: With `bf16`, `fp16` and `use_cpu`, which are set; not yet through `TrainingArguments.__post_init__`.
    """
    if args.bf16 is None:
        dtype = compute_dtype()
        on_wrong_device = args.use_cpu and torch.cuda.is_available()
        args.bf16 = dtype == torch.bfloat16 and not args.fp16 and not on_wrong_device
        args.fp16 = args.fp16 or (dtype == torch.float16 and not on_wrong_device)
    if args.bf16 and not torch.accelerator.is_available():
        args.use_cpu = True  # TrainingArguments refuses bf16 on a machine without a GPU unless this is said


def loading_arguments(quantization: Quantization, dtype: str | torch.dtype, device_map: Any) -> dict[str, Any]:
    """`from_pretrained`'s keyword arguments for these settings."""
    if dtype == "auto" and compute_dtype() == torch.float32:
        dtype = torch.float32
    kwargs: dict[str, Any] = {"dtype": dtype, "device_map": device_map, "trust_remote_code": False}
    if quantization is None:
        return kwargs
    if device_map is None:
        kwargs["device_map"] = {"": torch.cuda.current_device()} if torch.cuda.is_available() else {"": "cpu"}
    if isinstance(quantization, BitsAndBytesConfig):
        return {**kwargs, "quantization_config": quantization}
    if quantization == "8bit":
        return {**kwargs, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    if quantization == "4bit":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute_dtype(),
        )
        return {**kwargs, "quantization_config": config}
    raise UserError(f"quantization is {quantization!r}; use '8bit', '4bit' or None.")


def add_lora(model: PreTrainedModel, lora: PeftConfig | bool, task_type: TaskType) -> PeftModel:
    """Put an adapter named `default` on `model`: float32, with the right task type, tied embeddings kept tied."""
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear") if lora is True else copy.deepcopy(lora)
    assert isinstance(config, PeftConfig)  # a copy: what is filled in below must not meet the user's next trainer
    if config.task_type is None:
        config.task_type = task_type  # without it peft neither trains nor saves a reward model's head
    if config.task_type != task_type:
        raise UserError(f"peft_config.task_type is {config.task_type}; this model needs {task_type.value} (or None).")
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if tied and getattr(config, "ensure_weight_tying", None) is False and _touches_embeddings(config):
        config.ensure_weight_tying = True  # type: ignore[attr-defined]
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=True)  # type: ignore[return-value]
    except ValueError as error:  # no such modules, a rank of 0
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"peft_config, or lora: {reason}") from error


def keep_unpacked(model: nn.Module) -> None:
    """Keep bitsandbytes layers in the one state whose gradients are right on CPU.

    In eval mode an avx512_bf16 CPU repacks 4-bit weights for a kernel without autograd, which silently breaks later
    gradients; 8-bit layers compute differently in eval and train mode, which makes a reference differ from its policy.
    """
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes"):
            linear: Any = module
            linear.support_avx512bf16_for_cpu = False
            linear.train()
            linear.train = types.MethodType(_stay_in_train_mode, linear)


def _stay_in_train_mode(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def convert_gguf(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Dequantise the one .gguf file in the folder `source` into a plain model folder `target` (float32, safetensors).

    GGUF models can't be quantised again, saved or trained as they are. The folder's pad token is not EOS, as reward
    models need it (`set_distinct_pad_token`). It appears whole or not at all.
    """
    files = sorted(Path(source).glob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"{source} holds {len(files)} .gguf files; name a folder with exactly one.")
    target = Path(target)
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=files[0].name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=files[0].name)
    model.config.__dict__.pop("quantization_config", None)
    loaded: Any = model
    loaded.hf_quantizer, loaded.is_quantized = None, False
    set_distinct_pad_token(tokenizer, model.config)
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    try:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        os.replace(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def set_distinct_pad_token(tokenizer: PreTrainedTokenizerBase, config: Any) -> None:
    """Give tokenizer and model config a pad token that is not EOS, from the tokens the vocabulary has.

    Raises:
        UserError: If it has none that would do.
    """
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        usual = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<|vision_pad|>", "<unk>")
        token = next((t for t in usual if t in vocabulary and t != tokenizer.eos_token), None)
        if token is None:
            raise UserError("The tokenizer's pad token is its EOS; set tokenizer.pad_token to another token it has.")
        tokenizer.pad_token = token
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    config.pad_token_id = tokenizer.pad_token_id


def _plain_folder(path: str | os.PathLike[str]) -> str:
    """`path` itself, or for a GGUF folder its dequantised copy in the cache."""
    folder = Path(path)
    ggufs = sorted(folder.glob("*.gguf")) if folder.is_dir() and not (folder / "config.json").exists() else []
    if not ggufs:
        return str(path)
    stat = ggufs[0].stat()
    key = hashlib.sha256(f"{ggufs[0].name}-{stat.st_size}-{stat.st_mtime_ns}".encode()).hexdigest()[:16]
    target = Path(HF_HOME) / "hf_align" / "gguf" / key
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        convert_gguf(folder, target)
    return str(target)


def _adapter_config(path: str) -> PeftConfig | None:
    if os.path.isdir(path):
        return PeftConfig.from_pretrained(path) if (Path(path) / "adapter_config.json").exists() else None
    try:
        return PeftConfig.from_pretrained(path)
    except (OSError, ValueError):
        return None


def _base_of(adapter: PeftConfig, path: str) -> str:
    if not adapter.base_model_name_or_path:
        raise UserError(
            f"The adapter in {path} doesn't name its base model; set base_model_name_or_path in adapter_config.json."
        )
    return adapter.base_model_name_or_path


def _touches_embeddings(config: PeftConfig) -> bool:
    names = [*(getattr(config, "modules_to_save", None) or []), *_as_list(getattr(config, "target_modules", None))]
    return any(name.endswith(("lm_head", "embed_tokens", "wte")) for name in names)


def _as_list(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names or [])
