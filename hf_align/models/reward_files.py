"""Files of a reward model besides those of transformers and peft: settings, head, and the code that travels along.

reward_config.json holds head, pooling, tasks and normalisation where they aren't a plain classifier's, and
reward_head.safetensors the head. A full model that isn't plain also has modeling_hf_align_reward.py and, in
config.json, what that needs, so that it loads with `trust_remote_code=True` where hf_align isn't installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from hf_align.collators.encoding import PairEncoder
from hf_align.collators.rows import RowProblem
from hf_align.errors import LoadError, UserError
from hf_align.files import CONFIG, REWARD_CODE, REWARD_CONFIG, REWARD_HEAD, write_json
from hf_align.models import modeling_hf_align_reward as travelling
from hf_align.models.finite import nonfinite_weight
from hf_align.models.normalization import Normalization
from hf_align.models.reward_config import RewardModelConfig
from hf_align.models.sources import find_file


@dataclass(frozen=True)
class Settings:
    """Content of reward_config.json.

    Attributes:
        config: Head, pooling and tasks.
        normalization: What the scores are normalised on.
    """

    config: RewardModelConfig = field(default_factory=RewardModelConfig)
    normalization: Normalization | None = None

    def write(self, folder: Path, *, own_class: bool) -> None:
        """Write the file.

        Args:
            folder: The model's.
            own_class: Whether transformers has no classifier of this family; for the card.
        """
        values = {**asdict(self.config), **({"own_class": True} if own_class else {})}
        if self.normalization is not None:
            values["normalization"] = self.normalization.to_json()
        write_json(folder / REWARD_CONFIG, values)

    @classmethod
    def read(cls, path: str) -> Settings | None:
        """Those of a model's folder or Hub id; None without the file.

        Raises:
            LoadError: The file isn't one.
        """
        file = find_file(path, REWARD_CONFIG)
        if file is None:
            return None
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise UserError("it isn't a mapping")
            values.pop("own_class", None)
            normalization = values.pop("normalization", None)
            known = [each.name for each in fields(RewardModelConfig)]
            if unknown := sorted(set(values) - set(known)):
                raise UserError(
                    f"it has {', '.join(unknown)}, and the entries are {', '.join(known)} and normalization"
                )
            return cls(
                RewardModelConfig(**values), None if normalization is None else Normalization.from_json(normalization)
            )
        except (ValueError, TypeError) as error:  # UserError and bad JSON, too
            reason = next(iter(str(error).splitlines()), "").rstrip(".")
            raise LoadError(
                f"Can't read {file}: {reason}; save the model again, or update hf-align if a later version saved it.",
                path,
            ) from error


def read_head(path: str) -> dict[str, Tensor] | None:
    """The head of a reward model's folder or Hub id; None without a file of its own.

    Raises:
        LoadError: The file is broken.
    """
    file = find_file(path, REWARD_HEAD)
    if file is None:
        return None
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise LoadError(
            f"{file} is broken or cut off ({next(iter(str(error).splitlines()), '')}); download or save the model "
            "again.",
            path,
        ) from error
    if (name := nonfinite_weight(weights)) is not None:
        raise LoadError(f"The weight {name} in {file} holds NaN or infinite numbers; save the model again.", path)
    return weights


def fill_head(head: nn.Module, weights: dict[str, Tensor], path: str) -> None:
    """Put loaded weights into a head.

    Raises:
        LoadError: They are those of another head.
    """
    try:
        head.load_state_dict(weights)
    except RuntimeError as error:
        raise LoadError(
            f"The head in {REWARD_HEAD} of '{path}' is another than {REWARD_CONFIG} describes; save the model again.",
            path,
        ) from error


def add_code(folder: Path, settings: Settings, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add to a saved full model what it needs to load without hf_align."""
    shutil.copyfile(travelling.__file__, folder / REWARD_CODE)
    entry = asdict(settings.config) | {"offset": settings.normalization.offset if settings.normalization else 0.0}
    if settings.config.head == "attention" or settings.config.length_penalty:
        entry["response_start"] = response_start(tokenizer)
    name = travelling.RewardModelForSequenceClassification.__name__
    values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    values |= {
        "architectures": [name],
        "auto_map": {"AutoModelForSequenceClassification": f"{Path(REWARD_CODE).stem}.{name}"},
        travelling.SECTION: entry,
    }
    write_json(folder / CONFIG, values)


def without_code(config: Any) -> None:
    """Remove from a loaded config what `add_code` added, which belongs to the folder and not to the weights."""
    if hasattr(config, travelling.SECTION):
        delattr(config, travelling.SECTION)
        del config.auto_map


def renamed_head(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A reward model's weights with the head named as in the code that travels along, and the head's alone."""
    ours = "model.score."
    head = {name.removeprefix(ours): weight for name, weight in state_dict.items() if name.startswith(ours)}
    others = {name: weight for name, weight in state_dict.items() if not name.startswith(ours)}
    return others | {f"model.reward_head.{name}": weight for name, weight in head.items()}, head


def takes_renamed_head(classifier: nn.Module) -> None:
    """Let `load_state_dict` find a head under the name in saved weights, as when training is resumed."""
    classifier.register_load_state_dict_pre_hook(_rename_back)


def _rename_back(module: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    ours, theirs = f"{prefix}score.", f"{prefix}reward_head."
    for name in [name for name in state_dict if name.startswith(theirs)]:
        state_dict[ours + name.removeprefix(theirs)] = state_dict.pop(name)


def response_start(tokenizer: PreTrainedTokenizerBase) -> Sequence[int] | None:
    """Ids that the chat template's generation prompt adds, where an answer follows exactly these; otherwise None."""
    if not tokenizer.chat_template:
        return None
    encoder = PairEncoder(tokenizer)
    begin = [{"role": "user", "content": "Hello"}]
    try:
        prompt, response = encoder.prompt_and_response(begin, "Answer")
        text = str(tokenizer.apply_chat_template(begin, tokenize=False))
    except (RowProblem, UserError):
        return None
    (without,) = encoder.encode([text])
    start = prompt[len(without) :]
    joint = [*prompt, *response]
    ends = [end for end in range(len(start), len(joint) + 1) if joint[end - len(start) : end] == start]
    return start if start and prompt[: len(without)] == without and ends[-1] == len(prompt) else None
