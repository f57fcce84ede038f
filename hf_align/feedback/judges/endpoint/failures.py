"""What a failed request means: whether to send it again and when, and one sentence for the user."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from huggingface_hub.errors import InferenceTimeoutError, OfflineModeIsEnabled

from hf_align.errors import UserError
from hf_align.feedback.judges.endpoint.access import Access
from hf_align.feedback.judges.endpoint.completion import Malformed

PASSING = (408, 425, 429)
"""Statuses below 500 after which the same request may succeed."""
LONGEST_REASON = 200


class RequestRefused(UserError):
    """The endpoint refuses a request, and would refuse it again.

    Args:
        message: One sentence.
        status: HTTP status.
        reason: The endpoint's words.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Unanswered(UserError):
    """No answer for now: the endpoint fails, or the budget is used up."""


@dataclass(frozen=True)
class Failure:
    """A failed request.

    Attributes:
        kind: What it is counted as: a status, "timeout", "connection", "malformed" or "other".
        reason: Words of the endpoint or the connection, without the key.
        again: Whether the same request may succeed later.
        wait: Seconds that the endpoint asks to wait.
        status: HTTP status.
    """

    kind: str
    reason: str
    again: bool
    wait: float | None = None
    status: int | None = None


def read_failure(error: Exception, access: Access, now: float) -> Failure:
    """What an exception of a request means.

    Args:
        error: From `InferenceClient.chat_completion`, or `Malformed`.
        access: The endpoint, whose key the reason doesn't show.
        now: Seconds since the epoch, to read a date of Retry-After by.
    """
    response = _response_of(error)
    if response is not None:
        status = int(response.status_code)
        again = status in PASSING or status >= 500
        return Failure(str(status), _said_by(response, access), again, _retry_after(response, now), status)
    words = " ".join(access.hide(str(error)).split())[:LONGEST_REASON].rstrip(".")
    if isinstance(error, InferenceTimeoutError):
        return Failure("timeout", f"no answer within {access.timeout:g} s", True)
    if isinstance(error, OfflineModeIsEnabled):
        # With a url only where another thread has just opened a new session of huggingface_hub.
        return Failure("other", "HF_HUB_OFFLINE is set; unset it, or give a url", access.url is not None)
    if isinstance(error, Malformed | json.JSONDecodeError | UnicodeDecodeError) or _is_misread(error):
        return Failure("malformed", f"the answer can't be read ({words or type(error).__name__})", True)
    if any(parent.__module__.startswith(("httpx", "httpcore")) for parent in type(error).__mro__):
        return Failure("connection", f"the connection failed ({words or type(error).__name__})", True)
    return Failure("other", words or type(error).__name__, False)


def refusal(failure: Failure, access: Access) -> UserError:
    """The error for a request that isn't sent again."""
    status, reason = failure.status, failure.reason
    if status is None:
        return UserError(f"{access.place}: {reason}")
    fixes = {
        401: f"check the key in {access.variable}",
        402: "its account has no credit left",
        403: f"check what the key in {access.variable} may do",
        404: f"check the url and the model's name, {access.model!r}",
    }
    said = f" ({reason})" if reason else ""
    fix = f"; {fixes[status]}" if status in fixes else ""
    return RequestRefused(f"{access.place} refuses the request with {status}{said}{fix}", status, reason)


def _response_of(error: BaseException) -> Any:
    """The response that an error is about; reading an unusual one, huggingface_hub itself may fail."""
    link: BaseException | None = error
    while link is not None:
        response: Any = getattr(link, "response", None)
        if isinstance(getattr(response, "status_code", None), int) and response.status_code >= 400:
            return response
        link = link.__cause__ or link.__context__
    return None


def _is_misread(error: Exception) -> bool:
    """Whether huggingface_hub failed on an answer whose JSON isn't what the interface says."""
    if isinstance(error, ValueError):
        return str(error).startswith(("Invalid data type", "Invalid input data"))
    return isinstance(error, AttributeError | TypeError | KeyError)


def _said_by(response: Any, access: Access) -> str:
    """The endpoint's own words on one line, or none if it sent a page; the key is hidden before they are cut."""
    try:
        text = access.hide(response.text)
    except RuntimeError:  # the connection ended before the body was read
        return ""
    try:
        said = json.loads(text)
        for name in ("error", "message", "detail"):
            said = said.get(name, said) if isinstance(said, dict) else said
    except json.JSONDecodeError:
        said = "" if "html" in response.headers.get("content-type", "").lower() else text
    line = " ".join((said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)).split())
    return line[:LONGEST_REASON].rstrip(".")


def _retry_after(response: Any, now: float) -> float | None:
    """Seconds of the header Retry-After, which has them or a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value)) if value and float(value) < float("inf") else None
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)
