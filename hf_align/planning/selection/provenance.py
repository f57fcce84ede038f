"""Whether a reward model was trained on the policy's base and on the data at hand, as far as records say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hf_align.data.fingerprint import fingerprints_of
from hf_align.errors import UserError
from hf_align.models.fingerprint import read_fingerprint
from hf_align.models.kinds import is_classifier
from hf_align.models.sources import adapter_config, base_of, plain_folder
from hf_align.tracking import Run, read_runs


def reward_warnings(model: str, reward: str, dataset: Any) -> list[str]:
    """Warnings about a reward model for a policy.

    Bases are compared by the fingerprints of their weights where both record one, else by name; data by the fingerprint
    in the reward model's record.

    Args:
        model: The policy's Hub id or folder.
        reward: The reward model's.
        dataset: The rows whose prompts the policy will answer.
    """
    run = _run_of(reward)
    warnings = []
    own, other = _base(model, None), _base(reward, run)
    recorded = read_fingerprint(model), read_fingerprint(reward)
    if recorded[0] is not None and recorded[1] is not None:
        differs = bool(recorded[1].differing(recorded[0], any_vocabulary=True))
    else:
        differs = other is not None and own != other
    if other is None:
        warnings.append(f"{reward} doesn't say which base it was trained from, so it can't be compared with {model}")
    elif differs:
        warnings.append(
            f"the reward model's base, {other}, is not the policy's, {own}: it needs its own weights in memory, and "
            "what it learnt of its base's style may not hold for the policy's"
        )
    trained = None if run is None else run.data.get("train")
    if trained is None:
        warnings.append(f"{reward} has no record of its data, so its prompts can't be compared with these")
    elif trained.get("fingerprint") != fingerprints_of(train=dataset)["train"]["fingerprint"]:
        warnings.append(
            f"the reward model was trained on other rows ({trained.get('rows')} of them): check with hf-align evaluate "
            "reward that it is right on these prompts"
        )
    return warnings


def _run_of(reward: str) -> Run | None:
    """The latest run recorded in a reward model's folder."""
    if not os.path.isdir(reward):
        return None
    try:
        runs = read_runs(reward)
    except UserError:
        return None
    return max(runs, key=lambda run: run.started, default=None)


def _base(name: str, run: Run | None) -> str | None:
    """The model that one was trained from: of an adapter its base, else as the record says, else of a policy itself."""
    adapter = adapter_config(plain_folder(name))
    if adapter is not None:
        base: str | None = base_of(adapter, name)
    elif run is not None:
        base = run.base.get("name")
    else:
        base = None if is_classifier(name) else name
    return str(Path(base).resolve()) if base and os.path.isdir(base) else base
