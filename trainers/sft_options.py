"""SFT options that fit neither each other nor the rows or tokenizer: TRL would say so once the model is loaded."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_align.errors import UserError

LOSSES = ("nll", "dft")


def check_own_options(args: Any) -> None:
    """Refuse a loss that there isn't, and rows without padding that nothing cuts to `max_length`.

    Args:
        args: An `SFTConfig`.

    Raises:
        UserError: Says what to change.
    """
    if args.loss_type not in LOSSES:
        raise UserError(f"loss_type is {args.loss_type!r}; it must be {' or '.join(map(repr, LOSSES))}.")
    if args.padding_free and not args.packing and args.max_length is not None:
        raise UserError(
            f"padding_free is True and max_length is {args.max_length}, which rows are only cut to if they are packed; "
            "set packing=True, or max_length=None for rows that are short enough."
        )


def check_whole_conversations(args: Any, *datasets: Any) -> None:
    """Refuse a loss on assistants' messages alone for rows that have none.

    Args:
        args: An `SFTConfig`.
        datasets: Demonstrations as `trained_demonstrations` gives them; None is left out.

    Raises:
        UserError: Rows are texts.
    """
    if not args.assistant_only_loss:
        return
    for rows in datasets:
        if rows is None or not len(rows):
            continue
        content = next((rows[0][name] for name in ("messages", "prompt") if name in rows.column_names), None)
        if not isinstance(content, list):
            raise UserError(
                "assistant_only_loss is True, and the rows are texts; give conversations (messages), or leave it out."
            )


def check_token_names(args: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse an end or padding token that the vocabulary hasn't.

    Args:
        args: An `SFTConfig`.
        tokenizer: The trainer's.

    Raises:
        UserError: Names the option.
    """
    for option in ("eos_token", "pad_token"):
        if (token := getattr(args, option, None)) is not None and token not in tokenizer.get_vocab():
            raise UserError(f"{option} is {token!r}, which isn't in the tokenizer's vocabulary; name one that is.")
