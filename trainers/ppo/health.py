"""Warnings about PPO runs that go wrong without an error, from figures of their rollouts.

Each figure is averaged over several rollouts and enough responses to keep noise below the thresholds, and each warning
is given once per run. The thresholds:

- **KL** three times the target in three consecutive rollouts: an adaptive coefficient may overshoot up to twice the
  target while it adapts. Without a target, one nat per token, where samples have little to do with the reference.
- **Length** 1.6 times shorter or longer than the initial one. Where lengths spread by half their mean, the ratio of two
  means of 128 responses has an error of a sixteenth: six errors away. Growth that is wanted is worth a look, too.
- **Share of ended responses** .4 from the initial one: six errors of the difference of two shares of 128.
- **Clipped tokens** more than half in three consecutive rollouts: .1 to .3 is usual, and clipped tokens have no
  gradient.
- **Explained variance** 0 or below in five consecutive rollouts, from the tenth on: a new value head starts below 0.
- **Entropy** a fifth of the initial one, per token: it halves in good runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

ROLLOUTS, RESPONSES = 3, 128
"""Minimum rollouts and responses of a mean."""
KL_FACTOR, KL_BY_TOKEN = 3.0, 1.0
LENGTH_FACTOR = 1.6
SHARE_DRIFT = 0.4
MOST_CLIPPED = 0.5
VALUE_PATIENCE, VALUE_ROLLOUTS = 10, 5
ENTROPY_FACTOR = 5.0


@dataclass(frozen=True)
class Figures:
    """Means over a rollout's responses, of all processes.

    Attributes:
        responses: Number of responses.
        kl: Nats per response.
        length: Tokens per response.
        eos_share: Share of responses that the policy ended.
        entropy: Nats per token; None if unknown.
        explained_variance: Explained variance of the returns by the values; None if unknown.
        clipped: Share of tokens beyond the clip range in the updates since the previous rollout; None without updates.
    """

    responses: int
    kl: float
    length: float
    eos_share: float
    entropy: float | None = None
    explained_variance: float | None = None
    clipped: float | None = None


class Health:
    """Monitor of a run's rollouts.

    Args:
        target_kl: The KL controller's target in nats per response; None without a target.

    Attributes:
        said: The warnings so far by kind.

    Example:
        >>> from hf_align.trainers.ppo.health import Figures, Health
        >>> health = Health(target_kl=6.0)
        >>> for length in (20, 21, 20, 12, 8, 7):
        ...     warnings = health.watch(Figures(responses=64, kl=1.0, length=length, eos_share=0.9))
        >>> list(warnings)
        ['length']
    """

    def __init__(self, target_kl: float | None) -> None:
        self.target_kl = target_kl
        self.said: dict[str, str] = {}
        self._start: list[Figures] = []
        self._last: list[Figures] = []
        self._rollouts = 0

    def watch(self, figures: Figures) -> dict[str, str]:
        """Add the next rollout and return the new warnings, with advice, by kind."""
        self._rollouts += 1
        if not _enough(self._start):
            self._start.append(figures)
        else:
            self._last.append(figures)
        self._last = self._last[-max(VALUE_ROLLOUTS, _count(self._last)) :]
        checks: dict[str, Callable[[], str | None]] = {
            "kl": self._kl,
            "length": self._length,
            "eos_share": self._eos_share,
            "clipped": self._clipped,
            "values": self._values,
            "entropy": self._entropy,
        }
        new = {kind: text for kind, check in checks.items() if kind not in self.said and (text := check())}
        self.said |= new
        return new

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run."""
        return {
            "said": self.said,
            "start": [asdict(each) for each in self._start],
            "last": [asdict(each) for each in self._last],
            "rollouts": self._rollouts,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.said, self._rollouts = dict(state["said"]), state["rollouts"]
        self._start = [Figures(**each) for each in state["start"]]
        self._last = [Figures(**each) for each in state["last"]]

    # ---- the kinds ----

    def _kl(self) -> str | None:
        last = (self._start + self._last)[-ROLLOUTS:]
        if len(last) < ROLLOUTS:
            return None
        lowest = min(each.kl for each in last)
        if self.target_kl is not None and lowest > KL_FACTOR * self.target_kl:
            limit = f"{KL_FACTOR:g} times target_kl={self.target_kl:g}"
        elif self.target_kl is None and all(each.kl > KL_BY_TOKEN * each.length for each in last):
            limit = f"{KL_BY_TOKEN:g} nat per token"
        else:
            return None
        return (
            f"the KL runs away: at least {lowest:.3g} nats per response in {ROLLOUTS} rollouts, above {limit}. Lower "
            "learning_rate, raise kl_coef, or let it rise faster with a shorter kl_horizon."
        )

    def _length(self) -> str | None:
        start, now = self._then_and_now("length")
        if start is None or now is None or start / LENGTH_FACTOR < now < start * LENGTH_FACTOR:
            return None
        shorter = now < start
        advice = (
            "read samples: typical causes are rewards for short answers, or a reward model trained on few long ones"
            if shorter
            else "read samples: rewards that add up over a text cause this, and missing_eos_penalty counters it"
        )
        return (
            f"responses became {'shorter' if shorter else 'longer'}: {now:.3g} tokens, {start:.3g} at the start. If "
            f"that isn't wanted, {advice}; a lower target_kl stays closer to the reference."
        )

    def _eos_share(self) -> str | None:
        start, now = self._then_and_now("eos_share")
        if start is None or now is None or abs(now - start) < SHARE_DRIFT:
            return None
        advice = (
            "check whether responses only became shorter"
            if now > start
            else "set missing_eos_penalty, or raise max_new_tokens if responses are cut in the middle"
        )
        return f"the policy ends {now:.0%} of its responses itself, {start:.0%} at the start: {advice}."

    def _clipped(self) -> str | None:
        last = [each.clipped for each in (self._start + self._last)[-ROLLOUTS:] if each.clipped is not None]
        if len(last) < ROLLOUTS or min(last) <= MOST_CLIPPED:
            return None
        return (
            f"updates go too far: more than {MOST_CLIPPED:.0%} of tokens were beyond clip_range in {ROLLOUTS} rollouts "
            "and taught nothing. Lower learning_rate or num_ppo_epochs, or set early_stop_kl."
        )

    def _values(self) -> str | None:
        last = [each.explained_variance for each in (self._start + self._last)[-VALUE_ROLLOUTS:]]
        measured = [value for value in last if value is not None]
        if self._rollouts < VALUE_PATIENCE or len(measured) < VALUE_ROLLOUTS or max(measured) > 0:
            return None
        return (
            f"the values explain nothing: explained variance 0 or below in {VALUE_ROLLOUTS} rollouts, after "
            f"{self._rollouts}. Raise value_learning_rate, use more responses per rollout, or start with "
            "value_init='reward'."
        )

    def _entropy(self) -> str | None:
        start, now = self._then_and_now("entropy")
        if start is None or now is None or now > start / ENTROPY_FACTOR:
            return None
        return (
            f"the entropy collapses: {now:.2g} nats per token, {start:.2g} at the start; samples are nearly all alike "
            "and teach little. Set entropy_coef=0.01, lower learning_rate or raise kl_coef."
        )

    def _then_and_now(self, name: str) -> tuple[float | None, float | None]:
        """A figure's mean over responses at the start and over the last rollouts; None before there are enough."""
        last = self._last[-_count(self._last) :]
        if not _enough(self._start) or not _enough(last):
            return None, None
        return _mean(self._start, name), _mean(last, name)


def _enough(rollouts: list[Figures]) -> bool:
    return len(rollouts) >= ROLLOUTS and sum(each.responses for each in rollouts) >= RESPONSES


def _count(rollouts: list[Figures]) -> int:
    """Number of last rollouts with enough responses; all if all are too few."""
    return next((count for count in range(ROLLOUTS, len(rollouts)) if _enough(rollouts[-count:])), len(rollouts))


def _mean(rollouts: Iterable[Figures], name: str) -> float | None:
    weighted = [(each.responses, getattr(each, name)) for each in rollouts]
    if any(value is None for _, value in weighted):
        return None
    return sum(count * value for count, value in weighted) / sum(count for count, _ in weighted)
