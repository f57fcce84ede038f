"""Options of the data that a constitution makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hf_align.errors import UserError
from hf_align.fields import check_fields


@dataclass(frozen=True)
class ConstitutionConfig:
    """Options of `hf-align constitution`.

    Raises:
        UserError: A value is out of its range.

    Example:
        >>> from hf_align.feedback.constitution.config import ConstitutionConfig
        >>> ConstitutionConfig(revisions=2).revisions
        2
        >>> ConstitutionConfig(sft_share=1.5)
        Traceback (most recent call last):
        hf_align.errors.UserError: sft_share is 1.5; it must be between 0 and 1.
    """

    sft_share: float = field(
        default=0.5,
        metadata={
            "range": "[0, 1]",
            "help": "Share of the prompts whose responses are criticised and revised, for supervised fine-tuning. The "
            "others get responses that are compared. Which half a prompt is in depends on it and the seed alone.",
        },
    )
    revisions: int = field(
        default=4,
        metadata={
            "range": "[1, inf)",
            "help": "Principles by which a response is criticised, and revised where that finds something, one after "
            "the other; drawn for each prompt without repetition, by weight, among those for its domain.",
        },
    )
    votes: int | None = field(
        default=None,
        metadata={
            "range": "[1, inf)",
            "help": "Principles by which a pair is labelled, drawn as for revisions. None: all that suit the prompt.",
        },
    )
    examples: int | None = field(
        default=None,
        metadata={
            "range": "[0, inf)",
            "help": "The constitution's first examples that are shown before a critique and revision. None: all. Small "
            "models need some; each makes every prompt longer.",
        },
    )
    check: bool = field(
        default=True,
        metadata={
            "help": "Ask the model before each critique whether the response breaks the principle, and read its "
            "probability of 'Yes' against 'No'. A function that writes isn't asked: its critiques alone decide."
        },
    )
    threshold: float = field(
        default=0.5,
        metadata={
            "range": "[0, 1]",
            "help": "Probability that the principle is broken from which a response is criticised. 0 criticises all.",
        },
    )
    calibrate: bool = field(
        default=True,
        metadata={
            "help": "Take from the log-odds of 'Yes' what they are for the same question on a prompt and response "
            "without content ('N/A'), by which a small model leans to one word whatever it is asked."
        },
    )
    drop_refusals: bool = field(
        default=False,
        metadata={"help": "Keep the response as it was where a revision refuses and it didn't."},
    )
    revision_pairs: bool = field(
        default=False,
        metadata={
            "help": "Also write pairs of the revised response over the first one, in a file of their own: their "
            "prompts are those of the supervised half."
        },
    )
    responses_per_prompt: int = field(
        default=2, metadata={"range": "[2, inf)", "help": "Responses to a prompt that are compared."}
    )
    max_pairs: int = field(
        default=6, metadata={"range": "[1, inf)", "help": "Pairs of a prompt, drawn if there are more."}
    )
    labels: Literal["soft", "margin"] = field(
        default="soft",
        metadata={
            "help": "'soft': the probability that chosen is better as `preference`, a label of the reward trainer. "
            "'margin': 2 |p - 1/2| as `margin`. DPO and IPO read chosen and rejected alone."
        },
    )
    ties: Literal["drop", "keep"] = field(
        default="drop",
        metadata={"help": "Pairs whose votes come to exactly 1/2: left out, or kept with this soft label."},
    )
    temperature: float = field(
        default=1.0, metadata={"range": "[0, inf)", "help": "Sampling temperature of responses."}
    )
    critique_temperature: float = field(
        default=0.0,
        metadata={
            "range": "[0, inf)",
            "help": "Sampling temperature of critiques and revisions; 0 takes the most likely tokens.",
        },
    )
    max_new_tokens: int = field(
        default=256, metadata={"range": "[1, inf)", "help": "Length limit of a response and a revision, in tokens."}
    )
    max_critique_tokens: int = field(
        default=128, metadata={"range": "[1, inf)", "help": "Length limit of a critique, in tokens."}
    )
    batch_size: int = field(
        default=32,
        metadata={
            "range": "[1, inf)",
            "help": "Prompts that are worked on together. A killed run loses at most one step of one batch. Sampled "
            "tokens depend on it, as they do in any batch.",
        },
    )
    seed: int = field(default=0, metadata={"range": "[0, inf)", "help": "Seed of everything that is drawn."})

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ties == "keep" and self.labels == "margin":
            raise UserError("ties is 'keep', and a margin of 0 teaches nothing; give labels 'soft', or drop ties")
