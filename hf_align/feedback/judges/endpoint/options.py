"""A judge at an endpoint, as a recipe names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_align.errors import UserError
from hf_align.feedback.judges.endpoint.cache import MEMORY
from hf_align.feedback.judges.endpoint.judge import EndpointJudge
from hf_align.feedback.judges.endpoint.retries import Retries
from hf_align.feedback.judges.question import read_template

ENDPOINT_KEYS: Mapping[str, Any] = {
    "endpoint": str,
    "url": str | None,
    "provider": str | None,
    "key_variable": str | None,
    "cache": str | None,
    "prices": dict | None,
    "max_cost": float | None,
    "max_requests": int | None,
    "concurrency": int,
    "timeout": float,
    "attempts": int,
    "first_wait": float,
    "longest_wait": float,
    "extra_body": dict | None,
    "prompt": str | None,
    "principle": str | None,
    "max_tokens": int | None,
    "temperature": float | None,
    "logprobs": bool | None,
    "more_asks": int,
    "name": str | None,
}
"""Arguments of `EndpointJudge`, `EndpointClient` and `Retries` in a recipe, with their types."""
_OF_RETRIES = ("attempts", "first_wait", "longest_wait")


def check_endpoint(values: Mapping[str, Any], place: str) -> None:
    """Refuse wrong values; nothing is sent and no file is made.

    Args:
        values: Some of `ENDPOINT_KEYS`.
        place: Their place in the recipe, for messages.

    Raises:
        UserError: As `EndpointJudge`.
    """
    open_endpoint({**values, "cache": MEMORY}, place)


def open_endpoint(values: Mapping[str, Any], place: str) -> EndpointJudge:
    """The judge; arguments and errors as in `check_endpoint`."""
    options = {name: value for name, value in values.items() if name not in ("endpoint", "prompt", *_OF_RETRIES)}
    try:
        retries = Retries(**{name: values[name] for name in _OF_RETRIES if name in values})
        prompt = read_template(values.get("prompt"), place)
        return EndpointJudge(values["endpoint"], prompt=prompt, retries=retries, **options)
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(place) else f"{place}: {error}") from None
