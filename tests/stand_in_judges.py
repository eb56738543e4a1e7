"""Stand-in judges: a chat endpoint on this machine whose replies a function decides."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, str | dict[str, Any], dict[str, str]]


def said(text: Any) -> Answer:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


def answers_in(body: dict[str, Any]) -> tuple[str, str]:
    """The two answers in a request."""
    text = body["messages"][1]["content"]
    a, b = (re.findall(rf"<<<ANSWER {x} \w+>>>\n(.*?)\n<<<END ANSWER {x}", text, re.DOTALL)[0] for x in "AB")
    return a, b


def longer(body: dict[str, Any]) -> Answer:
    a, b = answers_in(body)
    return said(json.dumps({"verdict": "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B"}))


class Listening(ThreadingHTTPServer):
    request_queue_size = 64  # with 5 some of many connections at once would be tried again after a second


class Server:
    """The requests that arrived, and their paths; `answer` is called for one request at a time."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer]) -> None:
        self.answer, self.bodies, self.headers, self.paths = answer, [], [], []
        self.lock, self.url = threading.Lock(), ""
        self.models: list[str] = []

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server.lock:
                    server.bodies.append(body)
                    server.headers.append(dict(self.headers))
                    server.paths.append(self.path)
                    status, reply, headers = server.answer(body)
                data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                try:
                    self.send_response(status)
                    for name, value in {**headers, "Content-Length": str(len(data))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # who asked has gone away

            def do_GET(self) -> None:
                data = json.dumps({"object": "list", "data": [{"id": name} for name in server.models]}).encode()
                self.send_response(200 if server.models else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@contextmanager
def serving(answer: Callable[[dict[str, Any]], Answer]) -> Iterator[Server]:
    server = Server(answer)
    with Listening(("127.0.0.1", 0), server.handler()) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
