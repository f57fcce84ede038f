"""The quickstart: reward model, DPO, IPO and PPO on the embedded model and data, evaluated and reported."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.experiments.quickstart.job import open_job
    from hf_align.experiments.quickstart.run import run_quickstart

__all__ = ["open_job", "run_quickstart"]

__getattr__, __dir__ = lazy_names(__name__, {"job": ("open_job",), "run": ("run_quickstart",)})
