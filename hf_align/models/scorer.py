"""Any reward model or ensemble of a folder or the Hub, with the template in which it reads its texts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from jinja2 import TemplateSyntaxError
from peft import PeftConfig, PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_align.collators.rows import as_turns
from hf_align.errors import UserError
from hf_align.files import ADAPTER_WEIGHTS, REWARD_CONFIG, read_text
from hf_align.models.classifier import classifier_class
from hf_align.models.decoders import is_decoder, positions_of
from hf_align.models.ensemble import RewardEnsemble, members_of
from hf_align.models.ensemble_files import EnsembleSettings, ensemble_folder
from hf_align.models.fingerprint import check_base
from hf_align.models.finite import check_loaded, saved_weights
from hf_align.models.kinds import CLASSIFIER, is_classifier, no_head
from hf_align.models.loading import loading_arguments
from hf_align.models.outputs import Output, choose_output
from hf_align.models.padding import set_distinct_pad_token
from hf_align.models.quantized import Quantization, settle
from hf_align.models.reward import RewardModel
from hf_align.models.sources import (
    adapter_config,
    base_of,
    find_file,
    from_pretrained,
    is_ensemble,
    load_tokenizer,
    plain_folder,
)
from hf_align.models.text_classifier import TextClassifier
from hf_align.models.vocabulary import fit_vocabulary

logger = logging.get_logger(__name__)

TOKENIZERS_OWN = "tokenizer"
"""The `chat_template` that stands for the tokenizer's."""


@dataclass(frozen=True)
class Scorer:
    """A reward model that scores texts and can say in which template it reads them.

    Attributes:
        name: Its folder or Hub id.
        model: The reward model, any classifier as one, or an ensemble.
        output: Its output that is the reward.
        template: "rows" (messages by the tokenizer's chat template, text as it is), "tokenizer" (everything by the
            tokenizer's chat template) or "given" (everything by a template of the user's).
        padded_with_end: Whether its source pads with EOS, which hides the end of a text from transformers' own classes.

    Example:
        >>> from hf_align import RewardModel
        >>> from hf_align.models.scorer import load_scorer
        >>> RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct").save_pretrained("reward")
        >>> scorer = load_scorer("reward")
        >>> scorer.template_of(["What is 2 + 2?"])
        "none: prompt and response are concatenated as plain text that ends with '<|im_end|>'"
        >>> turns = [{"role": "user", "content": "What is 2 + 2?"}]
        >>> len(scorer.score([turns, turns], ["4", "5"]))
        2
    """

    name: str
    model: RewardModel | TextClassifier | RewardEnsemble
    output: Output
    template: str = "rows"
    padded_with_end: bool = False

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.model.tokenizer

    @property
    def reward_config(self) -> Any:
        """Head and pooling of a `RewardModel`; None for any other classifier."""
        return self.model.reward_config if isinstance(self.model, RewardModel) else None

    @property
    def config(self) -> Any:
        """The classifier's config; of an ensemble that of the member with the fewest positions."""
        configs = [member.model.config for member in members_of(self.model)]
        return min(configs, key=lambda config: positions_of(config) or float("inf"))

    @property
    def positions(self) -> int | None:
        """Tokens that it reads at most; None: any number."""
        return self.model.positions if isinstance(self.model, TextClassifier) else positions_of(self.config)

    @property
    def reads_end(self) -> bool:
        """As `ScorerFiles.reads_end`; then `model.score_ids` takes token ids."""
        if isinstance(self.model, RewardEnsemble):
            return self.model.takes_ids
        return isinstance(self.model, RewardModel) or self.model.reads_end

    def to(self, device: str | torch.device) -> Scorer:
        """Move the model, or an ensemble's members, as torch does."""
        for member in members_of(self.model):
            member.to(device)
        return self

    def score(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        finished: Sequence[bool] | None = None,
        rows: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> Any:
        """Score responses to prompts; arguments as in `RewardModel.score`, or of an ensemble as in its `score`.

        Raises:
            UserError: A row can't be used, or holds messages that no template can write.
        """
        if isinstance(prompts, str) or isinstance(responses, str) or len(prompts) != len(responses):
            return self.model.score(prompts, responses, finished, rows, **options)  # says what is wrong
        self.check(prompts, responses)
        if self.template != "rows":
            prompts = [as_turns(prompt, "user") for prompt in prompts]
            responses = [as_turns(response, "assistant") for response in responses]
        return self.model.score(prompts, responses, finished, rows, **options)

    def check(self, prompts: Sequence[Any], responses: Sequence[Any] = ()) -> None:
        """Refuse messages if there is no template for them.

        Raises:
            UserError: The tokenizer has no chat template.
        """
        if not self.tokenizer.chat_template and any(isinstance(side, list) for side in (*prompts, *responses)):
            raise no_template(self.name)

    def template_of(self, prompts: Sequence[Any]) -> str:
        """Name the template in which these prompts and their responses are read."""
        if self.template == "given":
            return "the chat template that was given"
        messages = any(isinstance(prompt, list) for prompt in prompts)
        if messages or self.template == TOKENIZERS_OWN:
            return "the tokenizer's chat template"
        if isinstance(self.model, TextClassifier) and not self.model.reads_end:
            return "none: prompt and response are the pair of texts of its tokenizer"
        return f"none: prompt and response are concatenated as plain text that ends with '{self.tokenizer.eos_token}'"

    def leaves_template_unused(self, prompts: Sequence[Any]) -> bool:
        """Whether the tokenizer has a chat template that these rows of plain text don't use."""
        plain = self.template == "rows" and not any(isinstance(prompt, list) for prompt in prompts)
        return plain and bool(self.tokenizer.chat_template)


def no_template(name: str) -> UserError:
    """Error to raise for messages that a model has no template for."""
    return UserError(
        f"The rows hold messages, and the tokenizer of {name} has no chat template to write them with; give the one "
        "that the model was trained with by chat_template=FILE, or rows of plain text."
    )


def load_scorer(
    path_or_hub_id: str | os.PathLike[str],
    *,
    output: str | int | None = None,
    chat_template: str | None = None,
    messages: bool = False,
    quantization: Quantization = None,
    dtype: str | torch.dtype = "auto",
    device_map: Any = None,
) -> Scorer:
    """Load any sequence classifier, or adapter for one, as a reward model.

    Decoders with one output and a linear head on the last token load as `RewardModel`, as do this library's own models;
    encoders, other heads and several outputs as `TextClassifier`. An ensemble loads as `RewardEnsemble`, with its first
    member's template.

    Args:
        path_or_hub_id: Folder or Hub id.
        output: Index or label of the output that is the reward; needed if there are several. The logit is the reward;
            that of a softmax classifier (`problem_type` "single_label_classification") becomes the log odds against its
            other classes.
        chat_template: A Jinja template or its file, used for all rows; "tokenizer": the tokenizer's, used for all rows.
            Default: the tokenizer's for messages, none for plain text.
        messages: Whether the rows to score are known to hold messages, which a model without template can't read.
        quantization: As in `load_policy`.
        dtype: As in `load_policy`.
        device_map: As in `load_policy`.

    Raises:
        UserError: It is a language model without a reward head, lacks weights, has several outputs of which none is
            chosen, or has no template for messages; before the weights are loaded, if the files tell.
    """
    files = read_scorer(path_or_hub_id, output=output, chat_template=chat_template, messages=messages)
    return files.load(quantization=quantization, dtype=dtype, device_map=device_map)


@dataclass(frozen=True)
class ScorerFiles:
    """What the files of a reward model tell before its weights are loaded; see `Scorer`.

    Attributes:
        path: Its folder or Hub id.
        base: That of the weights below an adapter, otherwise `path`.
        adapter: The adapter's config, if it is one.
        config: The classifier's config.
        own: Whether hf_align saved its head and pooling.
        output: As `Scorer.output`.
        tokenizer: With the chat template in effect.
        template: As `Scorer.template`.
        reads_end: Whether prompt and response are one sequence of tokens with an end, as in training here.
        ensemble: Folder of the ensemble whose first member this is.
    """

    path: str
    base: str
    adapter: PeftConfig | None
    config: Any
    own: bool
    output: Output
    tokenizer: PreTrainedTokenizerBase
    template: str
    reads_end: bool
    ensemble: str | None = None

    def load(
        self, *, quantization: Quantization = None, dtype: str | torch.dtype = "auto", device_map: Any = None
    ) -> Scorer:
        """Load the weights; arguments as in `load_scorer`."""
        settings: dict[str, Any] = {"quantization": quantization, "dtype": dtype, "device_map": device_map}
        path, config, tokenizer = self.path, self.config, self.tokenizer
        if self.ensemble is not None:
            return self._load_ensemble(self.ensemble, settings)
        model: RewardModel | TextClassifier
        if self.own or (self.reads_end and self.output.count == 1):
            model = RewardModel.from_pretrained(path, **settings)
            if model.head_is_new:
                raise no_head(path)
            model.tokenizer.chat_template = tokenizer.chat_template
        else:
            classifier = _load_classifier(path, self.adapter, self.base, config, self.reads_end, settings)
            if self.reads_end:
                set_distinct_pad_token(tokenizer, cast(Any, classifier).config)
            model = TextClassifier(classifier, tokenizer, self.output, reads_end=self.reads_end)
        ends = tokenizer.eos_token_id is not None and config.get_text_config().pad_token_id == tokenizer.eos_token_id
        if self.reads_end and ends:
            logger.warning(
                f"{path} pads with its EOS token, so transformers' own class would not score the end of a text; here "
                f"'{model.tokenizer.pad_token}' pads and the last token is scored."
            )
        return Scorer(path, model, self.output, self.template, self.reads_end and ends)

    def _load_ensemble(self, folder: str, settings: dict[str, Any]) -> Scorer:
        ensemble = RewardEnsemble.from_pretrained(folder, **settings)
        if self.template == "given":
            for member in ensemble.members:
                member.tokenizer.chat_template = self.tokenizer.chat_template
        return Scorer(self.path, ensemble, self.output, self.template)


def read_scorer(
    path_or_hub_id: str | os.PathLike[str],
    *,
    output: str | int | None = None,
    chat_template: str | None = None,
    messages: bool = False,
) -> ScorerFiles:
    """Read everything of a reward model but its weights; arguments and errors as in `load_scorer`."""
    if is_ensemble(path_or_hub_id):
        folder = ensemble_folder(path_or_hub_id)
        first = folder / EnsembleSettings.read(folder).members[0]
        files = read_scorer(first, output=output, chat_template=chat_template, messages=messages)
        return replace(files, path=str(path_or_hub_id), ensemble=str(folder))
    path = plain_folder(path_or_hub_id)
    own, adapter = find_file(path, REWARD_CONFIG), adapter_config(path)
    base = plain_folder(base_of(adapter, path)) if adapter is not None else path
    config = from_pretrained(AutoConfig, base)
    if not own and is_classifier(path) is False:
        raise no_head(path)
    if adapter is not None:
        config.num_labels = _outputs_of(path)
    chosen = Output(0, "reward", 1) if own else choose_output(config, output, path)
    tokenizer = load_tokenizer(path)
    template = _set_template(tokenizer, chat_template, path)
    if messages and not tokenizer.chat_template:
        raise no_template(path)
    reads_end = bool(own) or _reads_end(config, adapter)
    return ScorerFiles(path, base, adapter, config, bool(own), chosen, tokenizer, template, reads_end)


def _reads_end(config: Any, adapter: PeftConfig | None) -> bool:
    """Whether a model is a decoder with a linear head on the last token."""
    if not is_decoder(config):
        return False
    try:
        expected = classifier_class(config).__name__
    except UserError:
        return False
    named = [name for name in config.architectures or () if name.endswith(CLASSIFIER)]
    return adapter is not None or not named or expected in named


def _outputs_of(path: str) -> int:
    """Outputs of an adapter's head, by the shape that it stores."""
    file = find_file(path, ADAPTER_WEIGHTS)
    if file is None:
        return 1
    with safe_open(file, "pt") as tensors:
        heads = [name for name in tensors.keys() if ".score." in name or ".classifier." in name]  # noqa: SIM118
        shapes = [tensors.get_slice(name).get_shape() for name in heads if name.endswith("weight")]
    return shapes[-1][0] if shapes else 1


def _set_template(tokenizer: PreTrainedTokenizerBase, chat_template: str | None, name: str) -> str:
    """Give the tokenizer the template in effect; returns `Scorer.template`."""
    if chat_template is None:
        return "rows"
    if chat_template == TOKENIZERS_OWN:
        if not tokenizer.chat_template:
            raise UserError(f"chat_template is {TOKENIZERS_OWN!r}, and the tokenizer of {name} has none; give a file.")
        return TOKENIZERS_OWN
    if "{" not in chat_template:
        if not Path(chat_template).is_file():
            raise UserError(
                f"chat_template: there is no file {chat_template}; give a Jinja file, or {TOKENIZERS_OWN!r} for the "
                "tokenizer's."
            )
        file, chat_template = chat_template, read_text(chat_template, "chat_template")
        if not chat_template.strip():
            raise UserError(f"chat_template: {file} is empty; write a Jinja template into it.")
    tokenizer.chat_template = chat_template
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise UserError(f"chat_template: line {error.lineno} is no Jinja template: {error.message}") from None
    except Exception:  # nosec B110 # it may refuse these messages, and take those of the data
        pass
    return "given"


def _load_classifier(
    path: str, adapter: PeftConfig | None, base: str, config: Any, reads_end: bool, settings: Mapping[str, Any]
) -> Any:
    """A classifier with all of its weights."""
    model, info = from_pretrained(
        classifier_class(config) if reads_end else AutoModelForSequenceClassification,
        base,
        config=config,
        output_loading_info=True,
        **loading_arguments(**settings),
    )
    settle(model, settings["quantization"])
    missing = set(info["missing_keys"])
    if adapter is not None:
        check_base(model, path, base, any_vocabulary=True)
        fit_vocabulary(model, path, adapter)
        model = PeftModel.from_pretrained(model, path)
        check_loaded(saved_weights(model), path)
        missing -= _stored_by(path)
    if missing:
        raise UserError(
            f"{path} lacks the weights {', '.join(sorted(missing)[:3])}, which would be random; save the whole "
            "classifier again, or give one that was trained as a reward model."
        )
    return model


def _stored_by(path: str) -> set[str]:
    """Names of the weights of a base that an adapter replaces."""
    file = find_file(path, ADAPTER_WEIGHTS)
    if file is None:
        return set()
    with safe_open(file, "pt") as tensors:
        return {name.removeprefix("base_model.model.") for name in tensors.keys()}  # noqa: SIM118
