"""Which way is better, for the metrics of our algorithms."""

from __future__ import annotations

from hf_align.errors import UserError

GREATER = frozenset(
    (
        *("accuracy", "tau", "margin", "mean_token_accuracy", "reward", "judge", "win_rate"),
        *("rewards/accuracies", "rewards/margins", "objective/scores", "objective/rlhf_reward"),
        "val/explained_variance",
    )
)
"""Metrics of which more is better, without prefix and `eval_`. Of losses, less is; of others, such as KL, neither."""


def plain_name(name: str) -> str:
    """A metric's name without the prefix of an algorithm, if it has one, and without `eval_`.

    Example:
        >>> from hf_align.tracking.directions import plain_name
        >>> plain_name("rm/eval_accuracy"), plain_name("rewards/margins")
        ('accuracy', 'rewards/margins')
    """
    _, _, rest = name.partition("/")
    return (rest if rest.startswith("eval_") else name).removeprefix("eval_")


def is_greater_better(name: str, given: bool | None = None) -> bool:
    """Whether more of a metric is better.

    Args:
        name: The metric, with or without `eval_` and prefix.
        given: What the user says about it; None if nothing.

    Raises:
        UserError: Nothing was said, and it isn't known of this metric.
    """
    if given is not None:
        return given
    plain = plain_name(name)
    # A prefix (rm/margin) or the name of one of several evaluation sets (eval_news_accuracy) may stand before it.
    parts = [plain, plain.partition("/")[2], plain.partition("_")[2]]
    if any(part in GREATER for part in parts):
        return True
    if plain.endswith("loss"):
        return False
    raise UserError(f"metric {name!r}: whether more or less of it is better isn't known; give greater_is_better.")
