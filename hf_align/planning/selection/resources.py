"""What a training may use: memory, devices, hours, money, and what they compute a second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hf_align.errors import UserError
from hf_align.models.precision import multiplications_per_second
from hf_align.planning.device import Device

ASSUMED_SPEED = 40.0
"""10¹² operations a second assumed of a GPU: about a third of the 125 that NVIDIA states for an A10 in 16 bits."""


@dataclass(frozen=True)
class Resources:
    """What a training may use.

    Args:
        memory: Of one device: a GPU's name ("h100"), "24GB" or bytes. None: what is free here, on the GPU or else of
            the CPU's.
        gpus: Number of devices.
        hours: Hours of training at most.
        budget: Money at most; needs `price`.
        price: Money an hour of one device.
        speed: Floating-point operations a second that training reaches on one device, in 10¹². None: this CPU's in
            square products, of a GPU `ASSUMED_SPEED`.

    Raises:
        UserError: A number isn't above 0, or one is given without what it needs.

    Example:
        >>> from hf_align.planning import Resources
        >>> Resources("24GB", budget=12, price=1.5, speed=40).hours_allowed
        8.0
    """

    memory: str | float | None = None
    gpus: int = 1
    hours: float | None = None
    budget: float | None = None
    price: float | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        for name in ("gpus", "hours", "budget", "price", "speed"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} is {value}; give a number above 0.")
        if (self.budget is None) != (self.price is None):
            raise UserError("budget and price belong together: money in all, and money an hour of one device.")
        if self.memory is not None:
            Device.of(self.memory)

    @property
    def hours_allowed(self) -> float | None:
        """The least of `hours` and what the budget pays; None: any number."""
        paid = None if self.budget is None or self.price is None else self.budget / self.price / self.gpus
        return min((each for each in (self.hours, paid) if each is not None), default=None)

    @property
    def operations_per_second(self) -> float:
        """Of all devices together."""
        if self.speed is not None:
            return self.speed * 1e12 * self.gpus
        on_gpu = self.device.kind == "cuda"
        return (ASSUMED_SPEED * 1e12 if on_gpu else multiplications_per_second(self.device.dtype)) * self.gpus

    @cached_property
    def device(self) -> Device:
        """The device: a GPU with the given memory, or this machine's."""
        return Device.here() if self.memory is None else Device.of(self.memory)
