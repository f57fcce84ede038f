"""Keys of other tools' recipes and flags (TRL's commands, earlier versions of transformers) by what they are here."""

from __future__ import annotations

from collections.abc import Container

HERE = {
    **dict.fromkeys(("model_name_or_path", "model_name", "sft_model_path"), "model"),
    **dict.fromkeys(("dataset_name", "dataset", "data"), "train_dataset"),
    **dict.fromkeys(("dataset_train_split", "dataset_test_split", "dataset_config"), "train_dataset"),
    **dict.fromkeys(("reward_model_path", "reward_model", "reward_funcs", "reward_model_name_or_path"), "reward"),
    **dict.fromkeys(("use_peft", "peft_config", "use_lora"), "lora"),
    **{f"lora_{name}": f"lora.{name}" for name in ("r", "target_modules", "modules_to_save", "task_type")},
    **{name: f"lora.{name}" for name in ("lora_alpha", "lora_dropout", "use_rslora", "use_dora")},
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantization_config"), "quantization"),
    **dict.fromkeys(("max_seq_length", "max_seq_len"), "max_length"),
    **dict.fromkeys(("max_completion_length", "response_length"), "max_new_tokens"),
    **{"num_generations": "num_samples", "no_cuda": "use_cpu", "evaluation_strategy": "eval_strategy"},
    **{
        "warmup_ratio": "warmup_steps",
        "group_by_length": "train_sampling_strategy",
        "overwrite_output_dir": "output_dir",
    },
}
MORE = {
    "dataset_train_split": ", as DATA:SPLIT",
    "dataset_test_split": " and eval_dataset, as DATA:SPLIT",
    "dataset_config": ", as DATA:SUBSET",
    "load_in_4bit": ": 4bit",
    "load_in_8bit": ": 8bit",
    "warmup_ratio": ", below 1 a share of all steps",
    "overwrite_output_dir": ", and a folder with a run in it is never overwritten",
}
"""What to say besides the key."""


def name_here(key: str, keys: Container[str]) -> str | None:
    """What a key of another tool is here, or None.

    Args:
        key: The key.
        keys: Keys that the command has.

    Example:
        >>> from hf_align.experiments.foreign_keys import name_here
        >>> name_here("load_in_4bit", ["model", "quantization"])
        'here it is quantization: 4bit'
    """
    here = HERE.get(key)
    if here is None or here.partition(".")[0] not in keys:
        return None
    return f"here it is {here}{MORE.get(key, '')}"
