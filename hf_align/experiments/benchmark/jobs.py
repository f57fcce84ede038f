"""The runs of a grid, each with all that determines its result, so that a changed grid is noticed by name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.evaluation.grid import FAILED, RESULT
from hf_align.files import ADAPTER_CONFIG, write_json

IDENTITY = ("dataset", "algorithm", "label", "seed")
"""Settings that say which run it is."""
JOB, LOG = "job.json", "log.txt"


@dataclass(frozen=True)
class Job:
    """One run: the base's, the training of a reward model, or an algorithm's on a data set with a seed.

    Attributes:
        kind: "base", "reward", "train", "hybrid" or "best-of-n".
        place: Its folder in the benchmark's: "base/0", "clean/reward", "clean/dpo/0".
        settings: All that determines its result, as JSON has it; models by their content.
        sources: Names, which may differ on another machine: "model", "judge", "reward" (options where it is trained, or
            None), "rewards" of the base by data set, and their "contents".
        needs: Folders of the runs whose results it reads.
        work: How long it may take, beside others.
    """

    kind: str
    place: str
    settings: dict[str, Any]
    sources: dict[str, Any]
    needs: tuple[str, ...] = ()
    work: float = field(default=0.0, compare=False)

    def folder(self, out: Path) -> Path:
        """Its folder."""
        return out / self.place

    def is_finished(self, out: Path) -> bool:
        """Whether its result is there; the base's with its rewards for all data sets."""
        path = self.folder(out) / RESULT
        if not path.exists():
            return False
        return self.kind != "base" or not self.unscored(json.loads(path.read_text(encoding="utf-8")))

    def unscored(self, result: Mapping[str, Any]) -> list[str]:
        """Data sets whose reward the base's result lacks, or has of a reward that was another one."""
        contents, scored = self.sources.get("contents", {}), result.get("scored_by", {})
        return [
            name
            for name in self.sources["rewards"]
            if name not in result["rewards"] or (name in scored and scored[name] != contents.get(name))
        ]

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The run of a folder."""
        values = json.loads((folder / JOB).read_text(encoding="utf-8"))
        return cls(**{**values, "needs": tuple(values["needs"])})

    def check_unchanged(self, out: Path) -> None:
        """Refuse to go on with a run, or to use its result, that had other settings; one that failed may have others.

        Raises:
            UserError: Names what changed.
        """
        folder = self.folder(out)
        changes = [] if self._has_failed(folder) else [*self._changes(folder)]
        for name, was, is_now in sorted(
            changes, key=lambda change: not change[0].startswith("budget")
        ):  # the cause first
            raise UserError(
                f"output_dir: {folder} was begun with {name} {was}, and the grid has {is_now} now; restore it, choose "
                "another output_dir, or delete that folder"
            )

    def begin(self, out: Path) -> None:
        """Write what its process reads; a failed run that had other settings starts anew."""
        folder = self.folder(out)
        if self._has_failed(folder) and any(self._changes(folder)):
            shutil.rmtree(folder)
        (folder / FAILED).unlink(missing_ok=True)
        write_json(folder / JOB, {name: value for name, value in asdict(self).items() if name != "work"})

    def failure(self, reason: str) -> dict[str, Any]:
        """The content of its `failed.json`."""
        return {**{name: self.settings.get(name) for name in IDENTITY}, "reason": reason}

    def _has_failed(self, folder: Path) -> bool:
        return (folder / FAILED).exists() and not (folder / RESULT).exists()

    def _changes(self, folder: Path) -> Iterator[tuple[str, str, str]]:
        """Names of settings that the run in its folder had otherwise, with both values."""
        if (folder / JOB).exists():
            yield from _differences(self.read(folder).settings, json.loads(json.dumps(self.settings)))


def _differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Names of values that differ, with both."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now, strict=True), start=1):
            yield from _differences(*pair, f"{name}.{number}")
    elif before != now:
        yield name, _shown(before), _shown(now)


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)


def content_of(name: Any) -> Any:
    """A model's or function's name by which it is recognised in other places: with a digest of its files, if local.

    Args:
        name: Folder, Hub id, `FILE.py:FUNCTION`, or a list of these or of mappings with them.
    """
    if isinstance(name, list):
        return [content_of(each) for each in name]
    if isinstance(name, dict):
        return {key: content_of(value) if isinstance(value, str | list) else value for key, value in name.items()}
    if not isinstance(name, str):
        return name
    path, function = Path(name), ""
    if not path.exists() and ":" in name:
        file, _, function = name.rpartition(":")
        path = Path(file)
    if not path.exists():
        return name
    inside = [] if path.is_file() else [each for each in path.iterdir() if each.suffix in (".safetensors", ".json")]
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(inside) or [path]:
        if file.name in NO_WEIGHTS or not file.is_file():
            continue
        digest.update(file.name.encode())
        if file.name == ADAPTER_CONFIG:  # names its base's folder
            values = json.loads(file.read_text(encoding="utf-8"))
            digest.update(json.dumps({**values, "base_model_name_or_path": None}, sort_keys=True).encode())
            continue
        with file.open("rb") as content:
            while block := content.read(1 << 22):
                digest.update(block)
    return f"{path.name}{':' * bool(function)}{function} ({digest.hexdigest()})"


NO_WEIGHTS = ("stage.json", "history.json", "model_card.json", "trainer_state.json", "base_fingerprint.json")
"""Files beside a model's that don't change what it computes."""
