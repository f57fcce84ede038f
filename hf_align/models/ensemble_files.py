"""Files of an ensemble: `ensemble.json` beside one folder for each member, which is a reward model's of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hf_align.errors import LoadError, UserError
from hf_align.files import AGGREGATOR, ENSEMBLE, whole_folder, write_json
from hf_align.hub.errors import hub_errors
from hf_align.hub.staging import link_or_copy
from hf_align.model_cards import card_told, describe_folder, save_card
from hf_align.model_cards.files import CARD, FACTS, is_own_text
from hf_align.models.fitted_aggregation import DynamicSelector, Stacking
from hf_align.models.sources import find_file, is_ensemble
from hf_align.numbers import is_number

FORMAT = 1
MEMBER = re.compile(r"member-\d+")
"""Names of the members' folders; no other is read, so none leads elsewhere."""


@dataclass(frozen=True)
class EnsembleSettings:
    """Content of ensemble.json.

    Attributes:
        method: How scores are combined.
        weights: Of the members, or None.
        uncertainty_coef: As in `RewardEnsemble`.
        trim: As in `RewardEnsemble`.
        members: Folders of the members, in order.
        kind: What the members share: "adapters" (on one backbone), "heads", nothing ("models"), or "mixed"; for
            readers only.
        fitted: Whether there is a fitted aggregation in `aggregator.safetensors`.
        error_correlation: That of the members, as `ErrorCorrelation.to_json` gives it, if it was measured.
    """

    method: str
    weights: list[float] | None
    uncertainty_coef: float
    trim: float
    members: list[str]
    kind: str
    fitted: bool
    error_correlation: dict[str, Any] | None

    def write(self, folder: Path) -> None:
        """Write the file."""
        write_json(folder / ENSEMBLE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> EnsembleSettings:
        """Those of a folder.

        Raises:
            LoadError: There is no such file, it isn't one, or a member is missing.
        """
        path = folder / ENSEMBLE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls._checked(values, folder)
        except FileNotFoundError as error:
            raise LoadError(
                f"{folder} holds no ensemble: it has no {ENSEMBLE}; load a single reward model with load_reward_model.",
                str(folder),
            ) from error
        except (ValueError, TypeError) as error:  # UserError and bad JSON, too
            reason = next(iter(str(error).splitlines()), "").rstrip(".")
            raise LoadError(f"Can't read {path}: {reason}; save the ensemble again.", str(folder)) from error

    @classmethod
    def _checked(cls, values: Any, folder: Path) -> EnsembleSettings:
        names = {entry.name for entry in fields(cls)}
        if not isinstance(values, dict) or not isinstance(values.get("format"), int):
            raise UserError("it has no format")
        if values["format"] > FORMAT:
            raise UserError(f"its format {values['format']} is of a later hf-align, which would load it")
        if missing := sorted(names - values.keys()):
            raise UserError(f"it has no {', '.join(missing)}")
        members = values["members"]
        if not isinstance(members, list) or not members or not all(map(_is_member, members)):
            raise UserError(f"its members are {members!r}, not a list of folders member-0, member-1, ...")
        if absent := [name for name in members if not (folder / name).is_dir()]:
            raise UserError(f"there is no folder {absent[0]} beside it")
        _check_settings(values)
        return cls(**{name: values[name] for name in names})


def _check_settings(values: dict[str, Any]) -> None:
    """Refuse settings of another type, which an edited file may have.

    Raises:
        UserError: Names the entry.
    """
    for name in ("trim", "uncertainty_coef"):
        if not is_number(values[name]):
            raise UserError(f"its {name} is {values[name]!r}, not a number")
    weights = values["weights"]
    if weights is not None and not (isinstance(weights, list) and all(map(is_number, weights))):
        raise UserError(f"its weights are {weights!r}, not a list of numbers")
    if not isinstance(values["fitted"], bool):
        raise UserError(f"its fitted is {values['fitted']!r}, not true or false")


def _is_member(name: Any) -> bool:
    return isinstance(name, str) and MEMBER.fullmatch(name) is not None


def member_names(count: int) -> list[str]:
    """Folders of so many members."""
    return [f"member-{number}" for number in range(count)]


def member_sources(path_or_hub_id: str | os.PathLike[str]) -> list[str]:
    """The folders of an ensemble's members, without weights if they aren't here yet; of anything else itself.

    Raises:
        UserError: The ensemble can't be read.
    """
    if not is_ensemble(path_or_hub_id):
        return [str(path_or_hub_id)]
    folder = ensemble_folder(path_or_hub_id, weights=False)
    return [str(folder / name) for name in EnsembleSettings.read(folder).members]


def ensemble_folder(path_or_hub_id: str | os.PathLike[str], *, weights: bool = True) -> Path:
    """The ensemble's folder; that of a Hub repository is downloaded.

    Args:
        path_or_hub_id: Folder or Hub id.
        weights: Whether to download weights, too.

    Raises:
        UserError: There is no ensemble, or the Hub or the connection fails.
    """
    path = str(path_or_hub_id)
    if os.path.isdir(path):
        return Path(path)
    if (file := find_file(path, ENSEMBLE)) is None:
        raise LoadError(
            f"'{path}' is neither a folder nor a Hub id of an ensemble ({ENSEMBLE}); name the one that "
            "RewardEnsemble.save_pretrained or push_to_hub wrote.",
            path,
        )
    parts: Sequence[str] = (ENSEMBLE, AGGREGATOR, "member-*/*")
    with hub_errors(f"downloading the ensemble {path}"):
        left_out = None if weights else ["*.safetensors"]
        revision = file.parent.name
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(parts), ignore_patterns=left_out))


def save_ensemble(
    target: Path, members: Sequence[Any], settings: EnsembleSettings, aggregator: Stacking | DynamicSelector | None
) -> None:
    """Write a folder for each member, `ensemble.json`, what was fitted and a card; whole or not at all.

    An older ensemble there is replaced; other files stay, as does a card that was edited by hand.
    """
    with whole_folder(target) as unfinished:
        for name, member in zip(settings.members, members, strict=True):
            member.save_pretrained(unfinished / name)
            (unfinished / name / "README.md").unlink(missing_ok=True)  # peft's
        if aggregator is not None:
            weights = {name: weight.contiguous() for name, weight in aggregator.state_dict().items()}
            save_file(weights, unfinished / AGGREGATOR)
        settings.write(unfinished)
        _keep_other_files(target, unfinished)
        with card_told(target):
            facts = describe_folder(unfinished)
            facts.name = target.resolve().name
            save_card(unfinished, facts)


def load_aggregator(path: Path, method: str, members: int) -> Stacking | DynamicSelector:
    """What was fitted for a method.

    Raises:
        LoadError: The file is missing, broken, or of another method or number of members.
    """
    try:
        weights = load_file(path)
        fitted = Stacking(members) if method == "stacking" else DynamicSelector(len(weights["center"]), members)
        fitted.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise LoadError(
            f"Can't read {path} as what was fitted for method={method!r} of {members} members; call fit again and save "
            f"the ensemble, or set fitted to false in {ENSEMBLE}.",
            str(path.parent),
        ) from error
    return fitted


def _keep_other_files(old: Path, new: Path) -> None:
    """Link what else is in an ensemble's folder into the one that will replace it."""
    ours = (ENSEMBLE, AGGREGATOR, FACTS)
    for path in sorted(old.rglob("*")) if old.is_dir() else ():
        name = path.relative_to(old)
        generated = name.as_posix() == CARD and path.is_file() and not is_own_text(old)
        if path.is_file() and not MEMBER.fullmatch(name.parts[0]) and name.as_posix() not in ours and not generated:
            link_or_copy(path, new / name)
