"""What is proved about each method: a line with its paper and the place in it."""

from __future__ import annotations

from typing import NamedTuple


class Theory(NamedTuple):
    """A guarantee and where it is proved, or that there is none."""

    guarantee: str
    source: str


THEORY = {
    "sft": Theory(
        "imitation: with mistakes on a share e of T tokens, at most T^2 e worse than who wrote the demonstrations",
        "arXiv:1011.0686, Theorem 2.1",
    ),
    "dpo": Theory(
        "its minimum is the optimum of reward minus beta KL, if preferences are Bradley-Terry and the pairs cover all "
        "responses",
        "arXiv:2305.18290, eq. 4 and 7; that coverage is necessary: arXiv:2406.01462",
    ),
    "cdpo": Theory(
        "DPO's loss of a pair is least where the policy prefers the chosen response with probability 1 - e, not 1: a "
        "wrong label doesn't pull without end; no bound on what noise costs",
        "ericmitchell.ai/cdpo.pdf; with such a bound (loss_type: robust): arXiv:2403.00409",
    ),
    "ipo": Theory(
        "one minimum, finite for certain preferences too, without Bradley-Terry, if the pairs cover what the reference "
        "writes",
        "arXiv:2310.12036, Theorem 2 and eq. 17",
    ),
    "simpo": Theory("none: without a reference nothing bounds the distance from it", "arXiv:2405.14734, eq. 6"),
    "online-dpo": Theory(
        "DPO's minimum on its own samples; for linear softmax policies and large batches it converges exponentially in "
        "rounds",
        "arXiv:2402.04792; arXiv:2601.08421",
    ),
    "online-ipo": Theory(
        "where it comes to rest is a Nash equilibrium of the regularised game of preferences against itself",
        "arXiv:2403.08635",
    ),
    "ppo": Theory(
        "none of its own: the clip stands in for the trust region within which TRPO never gets worse",
        "arXiv:1707.06347, eq. 7; arXiv:1502.05477, Theorem 1",
    ),
    "rloo": Theory(
        "unbiased gradient, since the baseline holds no response's own reward; after the first pass the clip biases it",
        "arXiv:2402.14740, eq. 7",
    ),
    "grpo": Theory(
        "none: dividing by a group's deviation weighs prompts by it, which changes what is maximised",
        "arXiv:2402.03300, eq. 3; the bias: arXiv:2503.20783",
    ),
    "reinforce": Theory("unbiased gradient, of large variance without a baseline", "Williams (1992), Theorem 1"),
    "hybrid": Theory(
        "none for the sequence: each stage has its method's, relative to the reference of that stage",
        "arXiv:2305.18290, eq. 4",
    ),
    "best-of-n": Theory(
        "KL from the base at most log n - (n - 1)/n, and by its own reward it wins at most n/(n + 1)",
        "arXiv:2401.01879, Theorem 3.1 and section 5",
    ),
}
"""By method, as `hf_align.evaluation.grid.traits.method_of` names them."""
UNKNOWN = Theory("no line in hf_align/report/grid/theory.py", "")
