"""A local server that speaks the OpenAI interface and misbehaves as told."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROMPT_TOKENS, COMPLETION_TOKENS = 100, 10


class StandIn:
    """Answers chat requests, or does what `script` says next.

    Attributes:
        answer: Makes the answer's text, or the whole choice, from a request.
        script: What happens to the next requests: a status, "hang", "cut", "kill", "page", "list", "empty", or None, an
            answer; then all are answered.
        headers: Headers of the answers with a status in the script.
        asked: Requests by body, whatever became of them.
        answered: Requests that were answered, by body.
        keys: Authorization headers of all requests.
        most: Requests whose answers were made at once.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Any] = lambda body: "A") -> None:
        self.answer = answer
        self.script: deque[Any] = deque()
        self.headers: dict[str, str] = {}
        self.said: Any = {"error": {"message": "Not today."}}
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.keys: list[str | None] = []
        self.most = self._under_way = 0
        self._lock = threading.Lock()
        self._end = threading.Event()
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[StandIn]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield self
        finally:
            self._end.set()
            server.shutdown()
            server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["content-length"])
        body = handler.rfile.read(length).decode()
        if len(body.encode()) < length:  # its sender was killed: nothing was asked
            handler.close_connection = True
            return
        with self._lock:
            self.asked[body] += 1
            self.keys.append(handler.headers["authorization"])
            act = self.script.popleft() if self.script else None
        self._act(handler, json.loads(body), body, act)

    def _act(self, handler: BaseHTTPRequestHandler, request: dict[str, Any], body: str, act: Any) -> None:
        if handler.path != "/v1/chat/completions":
            send(handler, 404, b"{}")
        elif isinstance(act, int):
            send(handler, act, json.dumps(self.said).encode(), **self.headers)
        elif act == "hang":
            self._end.wait()
        elif act == "page":
            send(handler, 200, b"<html>Welcome</html>")
        elif act == "list":
            send(handler, 200, b"[1, 2]")
        elif act == "empty":
            send(handler, 200, b'{"choices": []}')
        else:
            content = json.dumps(self._completion(request)).encode()
            if act in ("cut", "kill"):
                handler.send_response(200)
                if act == "cut":
                    handler.send_header("content-length", str(len(content)))
                handler.end_headers()
                handler.wfile.write(content[:20])
                handler.wfile.flush()
                handler.connection.shutdown(socket.SHUT_RDWR)
            else:
                with self._lock:
                    self.answered[body] += 1
                send(handler, 200, content)

    def _completion(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._under_way += 1
            self.most = max(self.most, self._under_way)
        try:
            choice = self.answer(request)
        finally:
            with self._lock:  # before the answer is sent, after which its asker may send the next
                self._under_way -= 1
        if isinstance(choice, str | None):
            choice = {"message": {"role": "assistant", "content": choice}, "finish_reason": "stop"}
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
        return {"choices": [{"index": 0, **choice}], "usage": usage, "model": request["model"]}


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"content-length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has gone
                stand_in.handle(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


class Clock:
    """Time that passes only where somebody sleeps, whose waits it keeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds
