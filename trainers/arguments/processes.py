"""Rows of the table: devices, processes and what scripts read."""

from __future__ import annotations

from typing import Any

from transformers.training_args import ParallelMode
from transformers.utils.import_utils import is_torch_xla_available

from hf_align.fields import as_written
from hf_align.trainers.arguments.cells import differs, refused, row, works

SCRIPTS = differs(
    "Read by neither the trainer nor hf-align's commands, which train, and evaluate where there is an `eval_dataset`."
)
WHOLE = "it generates from whole weights, which FSDP shards; use DDP, with LoRA and quantisation"


def without_shards(args: Any) -> str | None:
    """Refuse FSDP where Accelerate would train unsharded, or Trainer fail once the model is loaded."""
    if args.device.type == "cpu":
        return "Accelerate shards on GPUs, and on a CPU would train every process on whole weights; leave it out"
    if args.parallel_mode != ParallelMode.DISTRIBUTED:
        return "this is a single process; start several with `accelerate launch`, or leave it out"
    return None


def without_fsdp(args: Any) -> str | None:
    """Refuse options of FSDP without it."""
    return None if args.fsdp else "it is for fsdp, which is off; leave it out"


def without_tpu(args: Any) -> str | None:
    """Refuse the debug option that would fail at the first evaluation."""
    on_tpu = any(as_written(option) == "tpu_metrics_debug" for option in args.debug)
    return "tpu_metrics_debug needs a TPU; leave it out" if on_tpu and not is_torch_xla_available() else None


PROCESSES = (
    row("use_cpu"),
    row(
        "accelerator_config.split_batches",
        branches=refused("per_device_train_batch_size counts what one process trains on; leave it out"),
        untried="several processes",
    ),
    row(
        "accelerator_config.dispatch_batches",
        branches=refused("a batch of branches can't be sliced; leave it out"),
        untried="several processes",
    ),
    row(
        "accelerator_config.even_batches",
        branches=refused("a process without a batch would leave the others waiting; leave it out"),
        untried="several processes",
    ),
    row("accelerator_config.use_seedable_sampler", refused("a resumed run would draw other rows; leave it out")),
    row("accelerator_config.non_blocking", untried="a GPU"),
    row("accelerator_config.gradient_accumulation_kwargs", untried="several processes"),
    row("accelerator_config"),
    row(
        "parallelism_config",
        branches=refused("branches can't be split within a row or a layer; leave it out"),
        untried="several GPUs",
    ),
    row("ddp_find_unused_parameters", untried="several processes"),
    row("ddp_bucket_cap_mb", untried="several processes"),
    row("ddp_broadcast_buffers", untried="several processes"),
    row("ddp_static_graph", untried="several processes"),
    row("ddp_backend"),
    row("ddp_timeout", untried="several processes"),
    row("fsdp", works(unless=without_shards), rollouts=refused(WHOLE), untried="several GPUs"),
    row("fsdp_config", works(unless=without_fsdp), rollouts=refused(WHOLE), untried="several GPUs"),
    row(
        "deepspeed",
        rollouts=differs("Not ZeRO-3, which shards the weights that responses are sampled from."),
        untried="DeepSpeed",
    ),
    row("local_rank", works("What a launcher sets.")),
    row("debug", works(unless=without_tpu)),
    row("do_train", SCRIPTS),
    row("do_eval", SCRIPTS),
    row("do_predict", SCRIPTS),
)
