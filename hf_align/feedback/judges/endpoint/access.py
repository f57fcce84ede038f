"""Which endpoint is asked, and its key: read from the environment where it is used, and kept nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from huggingface_hub import InferenceClient, get_token

from hf_align.errors import UserError

HUGGING_FACE = ("huggingface.co", "hf.co", "huggingface.cloud", "hf.space")
"""Domains whose key is that of Hugging Face."""
KEY = re.compile(r"[!#-\[\]-~]+")
"""What a key may be made of: visible ASCII without quotes and backslashes."""
HIDDEN = "***"
KEY_NAMES = ("key", "api_key", "apikey", "access_token", "token", "authorization")
"""Names of fields with a key; a recipe, and what reports repeat of it, is no place for one."""


@dataclass(frozen=True)
class Access:
    """A model at an endpoint.

    Attributes:
        model: Its name there.
        url: Base URL, such as http://localhost:8000/v1; None for one of Hugging Face's inference providers.
        provider: Provider by which Hugging Face serves the model; None: the one that Hugging Face chooses.
        key_variable: Environment variable with the key. None: HF_TOKEN (or the token of `hf auth login`) for providers
            and URLs of Hugging Face, otherwise OPENAI_API_KEY, as OpenAI's client has it; where that isn't set, no key
            is sent. A token of Hugging Face is never sent elsewhere unless its variable is named.
        timeout: Seconds without a sign of the endpoint after which a request has failed.

    Raises:
        UserError: A value is impossible, or the key is missing or malformed.
    """

    model: str
    url: str | None = None
    provider: str | None = None
    key_variable: str | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise UserError(f"endpoint is {self.model!r}; give the name of a model at the endpoint")
        if self.url is not None:
            _check_url(self.url)
            if self.provider is not None:
                raise UserError("url and provider both say where the model is; leave one out")
        if not 0 < self.timeout < float("inf"):
            raise UserError(f"timeout is {self.timeout!r}; give seconds, above 0")
        if self.key() is None and (self.key_variable or self.url is None):
            login = " or log in with `hf auth login`" if self.variable == "HF_TOKEN" else ""
            raise UserError(f"{self.place} needs a key: set the environment variable {self.variable}{login}")

    @property
    def place(self) -> str:
        """The endpoint in messages, without anything after a question mark in its URL."""
        if self.url is not None:
            return f"endpoint {self.url.split('?')[0].split('#')[0]}"
        return f"provider {self.provider}" if self.provider else "Hugging Face's inference service"

    @property
    def variable(self) -> str:
        """The environment variable that the key is read from."""
        if self.key_variable:
            return self.key_variable
        host = "" if self.url is None else urlsplit(self.url).hostname or ""
        at_hugging_face = self.url is None or any(host == each or host.endswith(f".{each}") for each in HUGGING_FACE)
        return "HF_TOKEN" if at_hugging_face else "OPENAI_API_KEY"

    def key(self) -> str | None:
        """The key, or None where no variable has one.

        Raises:
            UserError: It has characters that no key has; it isn't shown.
        """
        key = os.environ.get(self.variable, "").strip()
        if not key and self.variable == "HF_TOKEN":
            key = get_token() or ""
        if key and not KEY.fullmatch(key):
            raise UserError(f"{self.variable} has spaces, quotes or other characters that no key has; set it anew")
        return key or None

    def hide(self, text: str) -> str:
        """A text without the key, for everything that is written or printed."""
        key = self.key()
        return text if key is None else text.replace(key, HIDDEN)

    def connect(self) -> InferenceClient:
        """A client of huggingface_hub for one request; it shares its connections with all others."""
        key = self.key()
        # Without a key huggingface_hub would send the user's token of Hugging Face to whatever server this is.
        headers: Any = {"authorization": None} if key is None else None
        provider: Any = self.provider
        return InferenceClient(base_url=self.url, provider=provider, api_key=key, timeout=self.timeout, headers=headers)


def check_no_key(names: Iterable[str], place: str) -> None:
    """Refuse fields that hold a key.

    Raises:
        UserError: One of the names is a key's; its value isn't shown.
    """
    for name in names:
        if str(name).lower().replace("-", "_") in KEY_NAMES:
            raise UserError(f"{place} has a key in it ({name}); give it by an environment variable (key_variable)")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError):
        known, parts = False, None
    if parts is not None and (parts.username or parts.password):
        raise UserError("url has a name or a password in it; give the key by an environment variable (key_variable)")
    check_no_key((name for name, _ in parse_qsl(parts.query)) if parts is not None else (), "url")
    if not known:
        raise UserError(f"url is {url!r}; give an address such as http://localhost:8000/v1")
