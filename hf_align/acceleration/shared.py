"""Changes made for their first user and undone after the last."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from threading import RLock
from typing import Any

Undo = Callable[[], None]
"""Undoes a change."""


class Shared:
    """Changes of one kind, by changed object, with the number of users of each.

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
        """Register a user, and make the changes that aren't made yet.

        Args:
            keys: Objects to change, referenced until the change is undone.
            change: Makes the change and returns its undo.

        Returns:
            The function that ends this use; changes without other users are undone.
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
    """Undo two changes, the second one first."""

    def undo() -> None:
        second()
        first()

    return undo
