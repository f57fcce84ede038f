"""When a failed request is sent again."""

from __future__ import annotations

from dataclasses import dataclass

from hf_align.errors import UserError


@dataclass(frozen=True)
class Retries:
    """Waits that double, within bounds.

    Attributes:
        attempts: How often a request is sent at most.
        first_wait: Seconds before the second attempt.
        longest_wait: Seconds that no wait exceeds; an endpoint that asks for a longer one isn't waited for.

    Raises:
        UserError: A value is out of range.

    Example:
        >>> from hf_align.feedback.judges.endpoint.retries import Retries
        >>> [Retries().wait(number, "ff") for number in (1, 2, 3)]
        [1.0, 2.0, 4.0]
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 120.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 1:
            raise UserError(f"attempts is {self.attempts!r}; give a whole number from 1")
        if not 0 <= self.first_wait <= self.longest_wait < float("inf"):
            raise UserError(f"waits go from {self.first_wait!r} to {self.longest_wait!r} s; give increasing numbers")

    def wait(self, attempt: int, key: str) -> float:
        """Seconds after failed attempt number `attempt`, from 1.

        Between half of the doubled wait and all of it, so that requests that failed together don't return together;
        which, is drawn by the request's key.
        """
        whole = min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))
        return whole * (0.5 + 0.5 * int(key[:2], 16) / 255)
