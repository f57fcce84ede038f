"""What a member was trained with, beside its checkpoints, so that another run neither repeats nor mixes it."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_align.errors import UserError
from hf_align.files import ADAPTER_CONFIG, CONFIG, finite, write_json
from hf_align.trainers.ensemble_config import Member

RECORD = "member.json"
WITHOUT_EFFECT = (
    *("output_dir", "run_name", "report_to", "project", "disable_tqdm", "resume_from_checkpoint", "push_to_hub"),
    *("logging_", "log_", "hub_", "save_", "trackio_", "dataloader_", "dataset_num_proc", "ddp_", "local_rank"),
    *(
        "per_device_eval_batch_size",
        "eval_accumulation_steps",
        "use_cpu",
        "skip_memory_metrics",
        "restore_callback",
        "record",
    ),
)
"""Options, or the beginnings of their names, that don't change what is learnt."""
ROWS = ("train_dataset", "eval_dataset", "reference")


def settings_of(member: Member, **others: Any) -> dict[str, Any]:
    """What a member's weights depend on, by name, as JSON has it.

    Args:
        member: The member.
        others: Further settings: digests of the rows, and options that its config doesn't have.
    """
    options = {name: value for name, value in member.args.to_dict().items() if not name.startswith(WITHOUT_EFFECT)}
    adapter = {} if member.peft_config is None else member.peft_config.to_dict()
    settings = {
        "model": member.model,
        "lora": member.peft_config is not None,
        **options,
        **{f"lora.{name}": value for name, value in adapter.items()},
        **others,
    }
    return finite(json.loads(json.dumps(settings, default=_as_json, sort_keys=True)))


def _as_json(value: Any) -> Any:
    if isinstance(value, set | frozenset | tuple):
        return sorted(value, key=str)
    return value.value if isinstance(value, enum.Enum) else str(value)


class MemberRecord:
    """The record of a member in its folder for checkpoints.

    Args:
        work: That folder.
        result: The folder of the finished member.
        settings: From `settings_of`.
    """

    def __init__(self, work: Path, result: Path, settings: Mapping[str, Any]) -> None:
        self.work, self.result, self.settings = work, result, dict(settings)

    def check(self) -> None:
        """Refuse to go on with a member that was trained with other settings.

        Raises:
            UserError: Names the first that differs.
        """
        saved = self._read().get("settings", {})
        for name in sorted(saved.keys() & self.settings.keys()):
            if saved[name] == self.settings[name]:
                continue
            place = f"output_dir: {self.result.name} in {self.result.parent} was trained"
            advice = "give the same to go on with that ensemble, or another output_dir to start one."
            if name in ROWS:
                raise UserError(f"{place} with another {name}; {advice}")
            raise UserError(f"{place} with {name} {saved[name]!r}, and now it is {self.settings[name]!r}; {advice}")

    def begin(self) -> None:
        """Note the settings, before anything is trained."""
        write_json(self.work / RECORD, {"settings": self.settings})

    def finish(self, results: Mapping[str, Any]) -> None:
        """Note that the member is in its folder, with `results` for tables."""
        write_json(self.work / RECORD, {"settings": self.settings, "results": dict(results)})

    def results(self) -> dict[str, Any] | None:
        """The results of a finished member; None if there is none yet."""
        whole = any((self.result / name).is_file() for name in (ADAPTER_CONFIG, CONFIG))
        return self._read().get("results") if whole else None

    def _read(self) -> dict[str, Any]:
        file = self.work / RECORD
        try:
            return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        except ValueError:
            raise UserError(f"output_dir: {file} can't be read; remove the folder {self.work.parent}.") from None
