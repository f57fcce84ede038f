"""Changes that are made for their first user and taken back after the last."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from threading import RLock
from typing import Any

Undo = Callable[[], None]
"""Takes a change back."""


class Shared:
    """Changes of one kind, by what is changed, with the number of their users.

    Example:
        >>> from hf_align.acceleration.shared import Shared
        >>> lights = Shared()
        >>> def switch_on(room):
        ...     print(f"{room} on")
        ...     return lambda: print(f"{room} off")
        >>> first = lights.join(["hall"], switch_on)
        hall on
        >>> second = lights.join(["hall", "attic"], switch_on)
        attic on
        >>> first()
        >>> "hall" in lights
        True
        >>> second()
        hall off
        attic off
    """

    def __init__(self) -> None:
        self._users: dict[Hashable, tuple[int, Undo]] = {}
        self._lock = RLock()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._users

    def join(self, keys: Iterable[Any], change: Callable[[Any], Undo]) -> Undo:
        """Change what isn't changed yet.

        Args:
            keys: What is to be changed, held until it is changed back.
            change: Makes the change and returns how to take it back.

        Returns:
            How to leave: what has no other users is changed back.
        """
        keys = list(keys)
        with self._lock:
            for key in keys:
                users, undo = self._users[key] if key in self._users else (0, change(key))
                self._users[key] = users + 1, undo

        def leave() -> None:
            with self._lock:
                for key in keys:
                    users, undo = self._users.pop(key)
                    if users > 1:
                        self._users[key] = users - 1, undo
                    else:
                        undo()

        return leave


def both(first: Undo, second: Undo) -> Undo:
    """Take two changes back, the second one first."""

    def undo() -> None:
        second()
        first()

    return undo
