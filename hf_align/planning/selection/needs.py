"""What a user can ask of an algorithm besides good results."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from hf_align.errors import UserError

NEEDS = {
    "robust_to_noise": "many labels may be wrong",
    "low_memory": "as little memory as possible",
    "fast": "as little training time as possible",
    "simple": "few stages and models",
    "no_reward_model": "no reward model, given or trained",
    "no_training": "the policy's weights stay as they are",
    "stay_close": "responses stay near the reference's (small KL)",
    "beyond_data": "responses may become better than the data's",
}
"""Every need by name. `rules.yaml` says what each changes."""


def checked_needs(needs: Sequence[str]) -> tuple[str, ...]:
    """The needs without repeats, in the order of `NEEDS`.

    Raises:
        UserError: One isn't in `NEEDS`; the message suggests the nearest.
    """
    for need in needs:
        if need not in NEEDS:
            near = difflib.get_close_matches(str(need).lower().replace("-", "_"), NEEDS, n=1, cutoff=0.5)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(NEEDS)}"
            raise UserError(f"need: there is no {need!r}; {meant}")
    return tuple(need for need in NEEDS if need in needs)
