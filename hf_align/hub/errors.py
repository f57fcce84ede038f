"""Failures of the Hub or the connection, as one sentence that says what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from hf_align.errors import UserError

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN, with a token that may write"
XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})(?: ([^)]*))?\)")
"""HTTP status in error messages of hf_xet, which transfers weights; its errors carry the status in no other way."""


@contextmanager
def hub_errors(doing: str, unchanged: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Turn any error of a huggingface_hub call into a `UserError`.

    Args:
        doing: Purpose of the call, such as "pushing to ORG/NAME".
        unchanged: Folder that the message calls unchanged, so that the call can be repeated.
    """
    try:
        yield
    except UserError:
        raise
    except (
        Exception
    ) as error:  # the block holds only the client's calls: connections, responses, and its checks of both
        again = "" if unchanged is None else f" {unchanged} is unchanged: run the same again to continue."
        raise UserError(f"{doing[0].upper()}{doing[1:]} failed: {_reason(error)}.{again}") from error


def _reason(error: BaseException) -> str:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, LocalTokenNotFoundError):
            return f"there is no token; {LOG_IN}"
        if isinstance(link, HfHubHTTPError):
            response = link.response
            detail = link.server_message or response.headers.get("X-Error-Message") or response.reason_phrase
            return _status_reason(response.status_code, detail)
        if answered := XET_STATUS.search(str(link)):
            return _status_reason(int(answered[1]), answered[2] or "")
    root = chain[-1]
    network = any(parent.__module__.startswith(("httpx", "httpcore")) for parent in type(root).__mro__)
    text = _line(str(root)) or type(root).__name__
    return f"the connection broke ({text})" if network or isinstance(root, ConnectionError) else text


def _status_reason(status: int, detail: str) -> str:
    if status == 401:
        return f"the Hub doesn't accept the token (401); {LOG_IN}"
    if status == 403:
        return "the token may not do that (403); it needs write access to this repository"
    if status == 404:
        return "the Hub has no such repository or revision, or the token may not see it (404)"
    return f"the Hub answered {status} ({_line(detail)})" if detail else f"the Hub answered {status}"


def _line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else ""
