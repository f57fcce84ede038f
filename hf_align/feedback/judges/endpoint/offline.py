"""Requests to an address that the user named, although HF_HUB_OFFLINE forbids those to the Hub."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import get_session

_TO_OWN_ADDRESS: ContextVar[bool] = ContextVar("hf_align_to_own_address", default=False)
_LOCK = threading.Lock()


class _Hook:
    """A hook of huggingface_hub's session, which refuses requests in offline mode; passed over by ours."""

    def __init__(self, hook: Callable[[Any], Any]) -> None:
        self.hook = hook

    def __call__(self, request: Any) -> Any:
        return None if _TO_OWN_ADDRESS.get() else self.hook(request)


@contextmanager
def reaching(url: str | None) -> Iterator[None]:
    """Let this thread's requests through in offline mode if they go to a URL that the user named.

    huggingface_hub sends all requests over one session, whose hook refuses every address in offline mode. Its hooks
    are wrapped once; all other requests are refused as before.

    Args:
        url: The address; None for Hugging Face's providers, which offline mode is meant for.
    """
    if url is None or not constants.HF_HUB_OFFLINE:
        yield
        return
    session = get_session()
    with _LOCK:
        hooks = session.event_hooks
        if not all(isinstance(hook, _Hook) for hook in hooks["request"]):
            wrapped = [hook if isinstance(hook, _Hook) else _Hook(hook) for hook in hooks["request"]]
            session.event_hooks = {**hooks, "request": wrapped}
    before = _TO_OWN_ADDRESS.set(True)
    try:
        yield
    finally:
        _TO_OWN_ADDRESS.reset(before)
