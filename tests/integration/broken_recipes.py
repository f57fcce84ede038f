"""Generated recipes with keys, types, ranges and combinations that make no sense, and YAML that few people write."""

from __future__ import annotations

import re
from typing import Any

import yaml
from hypothesis import strategies as st

from tests.integration.broken_rows import BAD

ALGORITHMS = ("reward", "dpo", "ipo", "sft", "ppo", "online-dpo", "ensemble", "hybrid")
SAMPLING = ("ppo", "online-dpo")
FIELDS = (
    *("learning_rate", "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("warmup_ratio", "warmup_steps", "weight_decay", "max_grad_norm", "seed", "logging_steps", "save_steps"),
    *("eval_strategy", "save_strategy", "lr_scheduler_type", "optim", "max_length", "max_prompt_length", "beta"),
    *("label_smoothing", "loss_type", "truncation_mode", "layout", "acceleration", "on_nonfinite", "margin_mode"),
    *("center_rewards_coefficient", "activation_recompute", "bf16", "fp16", "quantization", "lora", "model"),
    *("train_dataset", "eval_dataset", "output_dir", "metric_for_best_model", "load_best_model_at_end", "nonsense"),
    *("kl_coef", "num_samples", "temperature", "max_new_tokens", "reward", "curriculum", "tasks", "save_total_limit"),
    *("data_seed", "dataloader_num_workers", "eval_steps", "report_to", "resume_from_checkpoint", "run_name", "judge"),
    *("ref_model", "streaming", "shuffle_buffer", "augment", "prepare", "row_tokens", "adam_beta1", "adam_epsilon"),
    *("stages", "n", "bootstrap", "loss_weights", "lr_scheduler_kwargs", "optim_args", "deepspeed", "fsdp", "gamma"),
    *("num_mini_batches", "num_ppo_epochs", "clip_range", "target_kl", "stop_strings", "top_p", "baseline", "lam"),
    *("gradient_checkpointing_kwargs", "logging_dir", "hub_model_id", "push_to_hub", "packing", "freeze_layers"),
)
VALUES = st.one_of(
    BAD,
    st.sampled_from(
        ["auto", "no", "steps", "epoch", "yes", "1e-3", "-1", "out", "rows.jsonl", "sigmoid", "adamw_torch"]
    ),
    st.sampled_from([{"r": 4}, {"r": "x"}, {"r": 0}, {"nonsense": 1}, ["x", 1], "4bit", "3bit", 1e-4, 2, 10**6, -5]),
    st.sampled_from(["tiny", "rewards.py", "rewards.py:none", "no/such", ["tiny", "tiny"], {"model": "tiny"}, "."]),
)
HELD_OUT = "held_out.jsonl"
CONTRADICTIONS: tuple[dict[str, Any], ...] = (
    {"eval_strategy": "steps"},
    {"load_best_model_at_end": True},
    {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "steps", "eval_dataset": HELD_OUT},
    {"bf16": True, "fp16": True},
    {"max_length": 8, "max_prompt_length": 64},
    {"max_length": 1},
    {"max_steps": 0, "num_train_epochs": 0},
    {"quantization": "4bit"},
    {"lora": False, "quantization": "8bit"},
    {"precompute_ref_log_probs": True, "sync_ref_model": True},
    {"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0]},
    {"loss_type": "simpo", "ref_model": "tiny"},
    {"num_samples": 3, "per_device_train_batch_size": 2},
    {"policy_loss": "reinforce", "num_ppo_epochs": 4},
    {"baseline": "group", "num_samples": 1},
    {"streaming": True},
    {"streaming": True, "max_steps": 2, "augment": {"transitivity": True}},
    {"warmup_steps": 5, "warmup_ratio": 0.5},
    {"metric_for_best_model": "no_such_metric", "load_best_model_at_end": True, "eval_dataset": HELD_OUT},
    {"resume_from_checkpoint": True, "ignore_data_skip": True},
    {"train_dataset": "rows.jsonl", "eval_dataset": "rows.jsonl", "eval_strategy": "no", "do_eval": False},
    {"optim": "adamw_bnb_8bit", "optim_args": "x"},
    {"lora": {"target_modules": ["nothing"]}},
    {"lora": {"r": 4, "task_type": "SEQ_CLS", "modules_to_save": ["score"]}},
    {"deepspeed": {"zero_optimization": {"stage": 3}}},
    {"fsdp": "full_shard"},
    {"stages": [{"algorithm": "dpo"}, {"algorithm": "nonsense"}]},
    {"stages": []},
    {"stages": [{"algorithm": "ppo"}]},
    {"n": 1},
    {"n": 3, "bootstrap": 0.0},
    {"report_to": ["tensorboard", "none"]},
)
ODDITIES = (
    *("beta: 0.1\nbeta: 0.2\n", "lora: {r: 4, r: 8}\n", "seed: 0o17\n", "seed: 017\n", "seed: 0x1F\n", "seed: 1_000\n"),
    *("learning_rate: .nan\n", "learning_rate: .inf\n", "learning_rate: 1e999\n", "run_name: 2024-01-31\n"),
    *("run_name: !!timestamp 2024-01-31\n", "seed: !!int x\n", "beta: !!float x\n", "bf16: !!bool x\n"),
    *(
        "run_name: !!timestamp x\n",
        "run_name: !!binary é\n",
        "run_name: !!python/name:os.system\n",
        "lora: !!set {r}\n",
    ),
    *("lora: &a {r: 4}\nbeta: *a\n", "lora: &a {r: *a}\n", "lora: &a [*a]\n", "beta: *nowhere\n", "<<: {beta: 1}\n"),
    *("base: &b {r: 4}\nlora:\n  <<: *b\n", "? [a, b]\n: 1\n", "? {a: 1}\n: 2\n", "1: 2\n", "null: 2\n", "true: 2\n"),
    *("--- \nbeta: 1\n---\nbeta: 2\n", "%YAML 3.7\n---\n", "beta: 0.1 # \x85\n", "\ufeffbeta: 0.1\n", "beta:\t0.1\n"),
    *("beta:0.1\n", "beta 0.1\n", "- beta: 0.1\n", "beta: |\n  0.1\n", 'beta: "0.1"\n', "beta: '\n", "beta: yes\n"),
    *("seed: " + "9" * 5000 + "\n", "lora: " + "{a: " * 200 + "}" * 200 + "\n", "seed: 12:30:45\n", "bf16: on\n"),
    *("seed: " + "[" * 3000 + "\n", "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nlora: *c\n", "? \n: \n", "...\n"),
    "lora: &a {k: 1}\n"
    + "".join(f"k{n}: &k{n} {{x: *k{n - 1}, y: *k{n - 1}}}\n" for n in range(1, 40)).replace("*k0", "*a"),
)


@st.composite
def recipes(draw: st.DrawFn, command: str) -> bytes:
    """A command's recipe with some options that make no sense."""
    recipe: dict[str, Any] = {"train_dataset": "rows.jsonl", "output_dir": "out", "use_cpu": True, "bf16": False}
    if command == "hybrid":
        recipe["stages"] = [{"algorithm": "dpo", "max_steps": 1}, {"algorithm": "ipo", "max_steps": 1}]
    kind = draw(st.integers(0, 4))  # 4: nothing is wrong
    if kind == 0:
        recipe |= draw(st.sampled_from(CONTRADICTIONS))
    elif kind in (1, 2):
        for name in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
            recipe[name] = draw(VALUES)
    if str(recipe.get("output_dir")).startswith(("/", ".")):  # not out of the test's folder
        recipe["output_dir"] = "out"
    if draw(st.integers(0, 9)) == 0:
        recipe.pop(draw(st.sampled_from(sorted(recipe))))
    text = yaml.safe_dump(recipe, allow_unicode=draw(st.booleans()))
    if kind == 3:
        odd = draw(st.sampled_from(ODDITIES))
        text = odd + text if draw(st.booleans()) else text + odd
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from([":", "\t", "- x", "{", "\0", "é", "\n  a: 1", "&a *b"])) + text[at:]
    content = text.encode("utf-8", "surrogatepass")
    coding = draw(st.integers(0, 19))
    if coding < 3:
        content = (
            text.encode("utf-16", "surrogatepass") if coding == 0 else b"\xef\xbb\xbf" + content if coding == 1 else b""
        )
    return content


def names(key: str, recipe: bytes) -> bool:
    """Whether a recipe has a key."""
    return re.search(rb"^\W*" + key.encode() + rb"\b", recipe, re.MULTILINE) is not None


GRID: dict[str, Any] = {
    "model": "tiny",
    "judge": "vader",
    "prompts": {"data": "prompts.jsonl", "limit": 2},
    "budget": {"steps": 1, "passes": 1},
    "datasets": {"a": {"pairs": "rows.jsonl", "prompts": "prompts.jsonl"}},
    "algorithms": {"dpo": {}, "sft": {}},
    "options": {"per_device_train_batch_size": 2},
    "output_dir": "out",
    "seeds": 1,
}


@st.composite
def grids(draw: st.DrawFn) -> str:
    """A grid of a benchmark with one or two values that make no sense, perhaps deep inside."""
    grid: Any = dict(GRID)
    for _ in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from([*grid, "lora", "quantization", "max_new_tokens", "keep", "nonsense"]))
        inside = grid.get(key)
        if isinstance(inside, dict) and inside and draw(st.booleans()):
            name = draw(st.sampled_from([*inside, "nonsense"]))
            deeper = inside.get(name)
            if isinstance(deeper, dict) and draw(st.booleans()):
                below = draw(
                    st.sampled_from(["pairs", "prompts", "limit", "flip", "reward", "budget", "algorithm", "seeds"])
                )
                grid[key] = inside | {name: deeper | {below: draw(VALUES)}}
            else:
                grid[key] = inside | {name: draw(VALUES)}
        else:
            grid[key] = draw(VALUES)
    grid["output_dir"] = "out"
    return yaml.safe_dump(grid, allow_unicode=draw(st.booleans()))
