"""A small HTTP server of one store's live page: it reads, and answers nobody but who asks it by its own name.

A page elsewhere can make a browser ask any address of this machine, under a name of its own that leads here; so the
Host header has to be an address, ``localhost``, or the host that was asked for. Nothing is written, no path of the file
system is ever made of a request, and no other origin may read the answers.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import socketserver
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from featdyn.errors import FeatdynError, first_line
from featdyn.report.watched import Shown, Watched
from featdyn.store.locate import Store

PATIENCE = 30.0
"""Seconds that a connection may be silent."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the page has the rest of its policy in itself
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Serves the live page of a store until it is closed; ``url`` is where.

    Parameters
    ----------
    store : as of :class:`featdyn.open_run`
    host, port : 0 takes a port that is free

    Raises
    ------
    FeatdynError
        The store cannot be read, or the address not be had.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, store: Store, host: str = "127.0.0.1", port: int = 0) -> None:
        self.watched, self.host = Watched(store), host
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self.address_family = family
            super().__init__((str(address[0]), port), Handler)
        except OSError as error:
            free = "" if isinstance(error, socket.gaierror) else "; --port 0 takes a port that is free"
            raise FeatdynError(f"{host}, port {port}: {error.strerror or error}{free}") from error

    def server_bind(self) -> None:
        """Bind, without asking what this machine is called, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/"

    @property
    def is_local(self) -> bool:
        """Whether nobody but who is on this machine can ask."""
        return ipaddress.ip_address(self.server_name.partition("%")[0]).is_loopback

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a line what went wrong, unless whoever asked has gone."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            print(f"featdyn: {first_line(error)}", file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the page, its state and its parts."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "featdyn", ""
    timeout = PATIENCE
    server: Server

    def do_GET(self) -> None:
        """Answer."""
        if not self._is_mine(self.headers.get("Host", "")):
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "this server has another name")
            return
        path = unquote(urlsplit(self.path).path)
        shown = self.server.watched.look()
        if path == "/":
            self._answer(shown.tag, "text/html; charset=utf-8", shown.page)
        elif path == "/state.json":
            self._answer(f"s{shown.tag}", "application/json", lambda: _json(shown.state()))
        elif (name := _part(path, shown)) is not None:
            self._answer(f"p{shown.tag}", "application/json", lambda: _json(shown.part(name)))
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here; the report is at /")

    do_HEAD = do_GET

    def refused(self) -> None:
        """Refuse what would change something; the connection ends, as what may follow is not read."""
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, "this server reads only", Allow="GET, HEAD", Connection="close")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = do_TRACE = refused

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request that is known: a method of another name as any that is not for reading."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            self.refused()
            return
        self._say(HTTPStatus(code), (message or HTTPStatus(code).phrase).lower(), Connection="close")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of each request: a page asks every two seconds."""

    def _is_mine(self, given: str) -> bool:
        """Whether a Host header is no name that somebody else may have led here."""
        host = given.rpartition("]")[0][1:] if given.startswith("[") else given.partition(":")[0]
        host = host.rstrip(".").lower()
        if host in ("localhost", self.server.host.lower()):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def _answer(self, tag: str, kind: str, content: Callable[[], str]) -> None:
        held = [one.strip().removeprefix("W/") for one in self.headers.get("If-None-Match", "").split(",")]
        if f'"{tag}"' in held:
            self._send(HTTPStatus.NOT_MODIFIED, None, ETag=f'"{tag}"')
            return
        body = content().encode("utf-8", errors="replace")  # names may hold halves of surrogate pairs
        self._send(HTTPStatus.OK, body, **{"Content-Type": kind, "ETag": f'"{tag}"'})

    def _say(self, status: HTTPStatus, words: str, **headers: str) -> None:
        self._send(status, f"{words}\n".encode(), **{"Content-Type": "text/plain; charset=utf-8"}, **headers)

    def _send(self, status: HTTPStatus, body: bytes | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in (HEADERS | headers).items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body is not None and self.command != "HEAD":
            self.wfile.write(body)


def _part(path: str, shown: Shown) -> str | None:
    """Return the part that a path names, which has to be one that is shown."""
    name = path.removeprefix("/parts/").removesuffix(".json")
    return name if path == f"/parts/{name}.json" and name in shown.parts else None


def _json(content: Any) -> str:
    return json.dumps(content, allow_nan=False, separators=(",", ":"))
