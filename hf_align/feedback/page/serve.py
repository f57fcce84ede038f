"""The page's server: where it listens, who may open it, and its end."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware import Middleware

from hf_align.errors import UserError
from hf_align.feedback.page.app import CSS, HEAD, THEME, build, gr
from hf_align.feedback.page.guard import COLAB_HOSTS, LOCAL_HOSTS, NOTEBOOKS, Guard
from hf_align.feedback.page.identity import Logins, check_name, machine_user
from hf_align.feedback.page.view import Desk
from hf_align.feedback.store import PreferenceStore, open_store


class Page:
    """A page that is being served.

    Attributes:
        url: Its address on this machine.
        share_url: Its public address, if shared.
        passwords: Passwords that were made, by name.
    """

    def __init__(self, blocks: gr.Blocks, store: PreferenceStore, *, opened_store: bool, passwords: Mapping[str, str]):
        self._blocks = blocks
        self._store = store
        self._opened_store = opened_store
        self._opened_at = store.clock()
        self.url = str(blocks.local_url)
        self.share_url: str | None = blocks.share_url
        self.passwords = passwords

    def __repr__(self) -> str:
        return f"Page({self.share_url or self.url})"

    @property
    def stored(self) -> int:
        """Answers given on a page of this store since this one was opened, without those taken back."""
        return sum(1 for each in self._store.answers() if each.lease_id and each.answered_at >= self._opened_at)

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        while True:
            time.sleep(3600)

    def close(self) -> None:
        """Stop serving; answers that have arrived are stored first."""
        self._blocks.close(verbose=False)
        if self._opened_store:
            self._store.close()


def annotate(
    store: PreferenceStore | str,
    *,
    annotator: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    users: str | Path | Sequence[str] | Mapping[str, str] | None = None,
    gold_share: float | None = None,
    inline: bool | None = None,
) -> Page:
    """Open the page on which people compare responses, and return while it is being served.

    Args:
        store: The store, or its file or URL.
        annotator: Name of the person who neither logs in nor gives a name in the address (`?annotator=NAME`). Default:
            the login name on this machine.
        host: Address to listen on. Any but this machine's own needs `users`.
        port: Port; default: the first free one from 7860 on.
        share: Make a public address through Gradio's tunnel; needs `users`.
        users: Who may log in: a file with one `name:password` a line, passwords by name, or names, for which passwords
            are made and printed once.
        gold_share: Share of questions with a known answer, while there are any. Default: the collection's
            (`CollectionConfig.gold_share`), .1 without one.
        inline: Show the page below a notebook's cell; default: in notebooks.

    Returns:
        The page; `.close()` ends it.

    Raises:
        UserError: Gradio isn't installed, there is no such store, a login is missing, the host isn't this machine's, or
            the port is taken.
    """
    logins, passwords = _logins(users)
    public = share or host not in LOCAL_HOSTS
    if public and logins is None:
        what = "share" if share else f"host {host}"
        raise UserError(f"{what} lets others open the page: give users, the names of those who may log in")
    if gold_share is not None and not 0 <= gold_share <= 1:
        raise UserError(f"gold_share is {gold_share}; give a number from 0 to 1")
    _check_address(host, port)
    default = check_name(annotator) if annotator is not None else machine_user()
    opened = isinstance(store, str)
    store = open_store(store) if isinstance(store, str) else store
    blocks = build(Desk(store, gold_share=gold_share), default=default, login=logins is not None)
    hosts = {*LOCAL_HOSTS}
    _launch(blocks, host, port, hosts, share=share, logins=logins, inline=inline)
    if share and not blocks.share_url:
        blocks.close(verbose=False)
        raise UserError("no public address could be made: Gradio's tunnel can't be reached; try again, or give a host")
    if blocks.share_url:
        hosts.add(urlsplit(blocks.share_url).hostname or "")
    for name, password in passwords.items():
        print(f"{name}: {password}")
    return Page(blocks, store, opened_store=opened, passwords=passwords)


def _launch(
    blocks: gr.Blocks,
    host: str,
    port: int | None,
    hosts: set[str],
    *,
    share: bool,
    logins: Logins | None,
    inline: bool | None,
) -> None:
    """Serve the page, and return.

    Args:
        blocks: The page.
        host: Address to listen on.
        port: Port; None: the first free one.
        hosts: Names under which the page is served if `host` is this machine's, read at each request.
        share: Whether to make a public address.
        logins: Who may log in; None: no login.
        inline: Whether to show it in a notebook.

    Raises:
        UserError: The port can't be used.
    """
    colab = "google.colab" in sys.modules
    guard: dict[str, Any] = {
        "hosts": None if host not in LOCAL_HOSTS else hosts,
        "suffixes": COLAB_HOSTS if colab else (),
        "frames": NOTEBOOKS if colab or "ipykernel" in sys.modules else "",
    }
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        blocks.launch(
            server_name=host,
            server_port=port,
            share=share,
            auth=None if logins is None else logins.check,
            inline=inline,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=0,
            theme=THEME,
            css=CSS,
            head=HEAD,
            app_kwargs={
                **{"middleware": [Middleware(Guard, **guard)], "docs_url": None, "redoc_url": None, "openapi_url": None}
            },
        )
    except OSError as error:
        raise UserError(
            f"port {port or 'from 7860 to 7959'} on {host} can't be used: {error}; give another port"
        ) from None


def _check_address(host: str, port: int | None) -> None:
    """Refuse what can't be listened on: Gradio tries 100 ports of an address that isn't this machine's, 5 s each."""
    if port is not None and not 1 <= port <= 65535:
        raise UserError(f"port is {port}; give a number from 1 to 65535")
    why: OSError | None = None
    try:
        # A name may have several addresses, the first of which is of a kind that this machine hasn't, such as IPv6.
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        found, why = [], error
    for family, kind, _, _, address in found:
        try:
            with socket.socket(family, kind) as free:
                free.bind(address)
                return
        except OSError as error:
            why = why or error
    raise UserError(f"host {host} can't be listened on: {why}; give an address of this machine")


def _logins(users: Any) -> tuple[Logins | None, dict[str, str]]:
    """Logins, and the passwords that were made for them."""
    if users is None:
        return None, {}
    if isinstance(users, (str, Path)):
        return Logins.read(users), {}
    if isinstance(users, Mapping):
        return Logins(users), {}
    return Logins.make(users)
