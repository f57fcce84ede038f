"""Refusal of requests that the page itself doesn't send: from other sites, for other hosts, to other endpoints."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
COLAB_HOSTS = ("-colab.googleusercontent.com", ".colab.dev")
"""Ends of the names under which Colab's proxy shows a port of its machine."""
NOTEBOOKS = (
    "http://localhost:* http://127.0.0.1:* https://colab.research.google.com https://*.googleusercontent.com "
    "https://*.colab.dev vscode-webview:"
)
"""Pages of notebooks, which show a page in a frame."""
OPEN = frozenset(
    {
        *("/", "/config", "/login", "/logout", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
        *("/gradio_api/startup-events", "/gradio_api/app_id", "/gradio_api/user", "/gradio_api/login_check"),
    }
)
OPEN_BELOW = ("/assets/", "/static/", "/svelte/", "/gradio_api/run/", "/gradio_api/heartbeat/")
"""Endpoints of Gradio that the page uses. Uploads, files, proxies, monitoring and the rest are not found."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""Content policy: nothing is loaded from, or sent to, another host. Gradio builds its components with eval."""


class Guard:
    """Middleware in front of Gradio's endpoints.

    Args:
        app: What it guards.
        hosts: Names of the host under which the page may be asked for; None: any, for a page with a login, whose
            cookie no other name gets. May grow later.
        suffixes: Ends of further names.
        frames: Sources, as a content policy has them, of the pages that may show this one in a frame.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] | None = LOCAL_HOSTS,
        suffixes: Collection[str] = (),
        frames: str = "",
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.suffixes = tuple(suffixes)
        self.policy = f"{POLICY}; frame-ancestors 'self' {frames}".rstrip()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 404, or pass the request on."""
        if scope["type"] == "websocket":
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self.refuse(scope["method"], scope["path"], Headers(scope=scope))
        if refusal is not None:
            status, reason = refusal
            await PlainTextResponse(reason, status)(scope, receive, send)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self.policy
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self.app(scope, receive, send_with_policy)

    def refuse(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Status and reason of a refusal; None if the request may pass."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 403, f"This page isn't served under the name {_name(host)}."
        reads, site = method in ("GET", "HEAD"), headers.get("sec-fetch-site")
        # A link may lead here; but Gradio lets scripts of any port of this machine read what they ask for.
        if site not in (None, "same-origin", "none") and not (reads and headers.get("sec-fetch-mode") == "navigate"):
            return 403, "Requests from other sites are refused."
        if not reads:
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc.lower() != host.lower() and not self._is_behind(origin):
                return 403, "Requests from other sites are refused."
        path = path.rstrip("/") or "/"
        if path not in OPEN and not path.startswith(OPEN_BELOW):
            return 404, "Not found."
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        return bool(name) and (self.hosts is None or name in self.hosts or name.endswith(self.suffixes))

    def _is_behind(self, origin: str) -> bool:
        """Whether an origin is that of a proxy which renames the host, such as a tunnel or Colab's."""
        name = _name(urlsplit(origin).netloc)
        return (self.hosts is not None and name in self.hosts and name not in LOCAL_HOSTS) or name.endswith(
            self.suffixes
        )


def _name(host: str) -> str:
    """Host's name without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
