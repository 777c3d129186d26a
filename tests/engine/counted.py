"""A bucket on an S3-compatible server of this process that counts what is asked of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest


class Counter:
    """A WSGI application that counts requests, and bytes of their answers and contents."""

    def __init__(self, application: Any) -> None:
        self.application, self.guard = application, threading.Lock()
        self.requests = self.bytes = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self.guard:
            self.requests += 1
            self.bytes += int(environ.get("CONTENT_LENGTH") or 0)
        for piece in self.application(environ, start_response):
            with self.guard:
                self.bytes += len(piece)
            yield piece

    def count(self, call: Any) -> tuple[int, int]:
        """Return how many requests and bytes a call takes."""
        before = self.requests, self.bytes
        call()
        return self.requests - before[0], self.bytes - before[1]


@contextmanager
def counted_bucket() -> Iterator[tuple[str, Counter]]:
    """Serve a bucket; yield its URL and the counter, and set the environment that leads there."""
    moto = pytest.importorskip("moto.server")
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            pass

    counter = Counter(moto.DomainDispatcherApplication(moto.create_backend_app))
    server = make_server("127.0.0.1", 0, counter, threaded=True, request_handler=Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{environment['AWS_ENDPOINT_URL']}/counted", method="PUT")).close()
    try:
        with mock.patch.dict(os.environ, environment):
            yield "s3://counted", counter
    finally:
        server.shutdown()
        server.server_close()


def upload(folder: Path, url: str) -> None:
    """Copy a store into a bucket, as a tool that knows nothing of it would."""
    from featdyn.store.client import QUICK, connect

    store = connect(url, QUICK)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
