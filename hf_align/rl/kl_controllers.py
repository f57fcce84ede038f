"""Controllers of the KL coefficient: fixed, by thresholds, and proportional (Ziegler et al. 2019)."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from hf_align.errors import UserError


@dataclass
class FixedKLController:
    """A constant KL coefficient; also the interface of all controllers.

    Args:
        coef: The coefficient, >= 0.

    Raises:
        UserError: A negative or NaN coefficient.

    Example:
        >>> from hf_align.rl import FixedKLController
        >>> FixedKLController(0.1).update(kl=30.0, n_episodes=64)
        0.1
    """

    coef: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.coef < math.inf:
            raise UserError(f"The KL coefficient must be 0 or more, got {self.coef}.")

    def update(self, kl: float, n_episodes: int) -> float:
        """Take in one rollout and return the coefficient for the next.

        Args:
            kl: KL from the reference in nats, summed over a response's tokens, averaged over the rollout.
            n_episodes: Responses in the rollout, over all processes.

        Raises:
            ValueError: kl is NaN (it would make the coefficient NaN for good).
        """
        if math.isnan(kl):
            raise ValueError(
                "The measured KL is NaN: the policy's log-probs became NaN before the coefficient could react."
            )
        self.coef = self._next(kl, n_episodes)
        return self.coef

    def _next(self, kl: float, n_episodes: int) -> float:
        return self.coef

    def state_dict(self) -> dict[str, float]:
        """Coefficient and hyper-parameters, as plain numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue as the saved controller would have, its hyper-parameters included.

        Raises:
            ValueError: The state comes from another kind of controller.
        """
        names = {field.name for field in fields(self)}
        if set(state) != names:
            raise ValueError(f"{type(self).__name__} has the fields {sorted(names)}, the saved state {sorted(state)}.")
        vars(self).update(state)


@dataclass
class _AdaptiveKLController(FixedKLController):
    target: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.target < math.inf:
            raise UserError(f"The target KL must be greater than 0, got {self.target}.")

    def _check_bounds(self, lowest: float, highest: float) -> None:
        if not 0.0 < lowest <= self.coef <= highest:
            raise UserError(f"The KL coefficient must start within its bounds [{lowest}, {highest}], got {self.coef}.")


@dataclass
class ThresholdKLController(_AdaptiveKLController):
    """Controller that raises the coefficient when the KL is far above its target and lowers it when far below.

    Above 1.5 * target it is multiplied by `factor`, below 0.5 * target by `shrink`, within [min_coef, max_coef].

    Args:
        coef: Starting coefficient, within the bounds.
        target: Target KL in nats per response; > 0.
        factor: > 1.
        shrink: In (0, 1).
        min_coef: Lower bound, > 0: from 0 no factor would ever lead back.
        max_coef: Upper bound.

    Raises:
        UserError: A value out of range.

    Example:
        >>> from hf_align.rl import ThresholdKLController
        >>> controller = ThresholdKLController(0.1, target=6.0, factor=2.0)
        >>> controller.update(kl=12.0, n_episodes=64)
        0.2
    """

    factor: float = 1.5
    shrink: float = 0.5
    min_coef: float = 1e-4
    max_coef: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_bounds(self.min_coef, self.max_coef)
        if not (self.factor > 1.0 > self.shrink > 0.0):
            raise UserError(f"factor must be > 1 and shrink in (0, 1), got {self.factor} and {self.shrink}.")

    def _next(self, kl: float, n_episodes: int) -> float:
        if kl > 1.5 * self.target:
            return min(self.coef * self.factor, self.max_coef)
        if kl < 0.5 * self.target:
            return max(self.coef * self.shrink, self.min_coef)
        return self.coef


@dataclass
class ProportionalKLController(_AdaptiveKLController):
    """Controller that moves the coefficient with the KL's relative error (Ziegler et al. 2019, section 2.2).

    `coef *= 1 + e * n / horizon`, with `e = clip(kl / target - 1, -0.2, 0.2)` and n episodes in the rollout, within
    [min_coef, max_coef].

    Args:
        coef: Starting coefficient, within the bounds.
        target: Target KL in nats per response; > 0.
        horizon: Episodes over which the coefficient can change by about 20%; > 0. Ziegler et al.: 10,000.
        min_coef: Lower bound, > 0: from 0 no factor would ever lead back.
        max_coef: Upper bound.

    Raises:
        UserError: A value out of range.

    Example:
        >>> from hf_align.rl import ProportionalKLController
        >>> controller = ProportionalKLController(0.1, target=6.0, horizon=1000)
        >>> round(controller.update(kl=12.0, n_episodes=100), 6)  # the error counts as 0.2 at most
        0.102
    """

    horizon: float
    min_coef: float = 1e-4
    max_coef: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_bounds(self.min_coef, self.max_coef)
        if not 0.0 < self.horizon < math.inf:
            raise UserError(f"horizon must be greater than 0 episodes, got {self.horizon}.")

    def _next(self, kl: float, n_episodes: int) -> float:
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return min(max(self.coef * (1.0 + error * n_episodes / self.horizon), self.min_coef), self.max_coef)
