"""`featdyn serve`: a page that follows a store, from a server that reads only and answers to its own name only."""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from featdyn.analysis import analyses
from featdyn.report import chapters, document, watched
from featdyn.report.server import Server
from featdyn.store import Run, RunWriter
from tests.engine.browser import READY, browser, until
from tests.engine.declared_results import declared_result
from tests.engine.synthetic_run import CUBE, add_consistency, extend, make_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(watched, "EVERY", 0.0)
    monkeypatch.setattr(watched, "SHARE", 0)
    return add_consistency(make_run(tmp_path / "a run.zarr", checkpoints=3))


@contextmanager
def served(run: Run) -> Iterator[Server]:
    with Server(run.path) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: Server, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=240)
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read()
    finally:
        connection.close()


def state(server: Server) -> dict[str, Any]:
    status, _, body = ask(server, "/state.json")
    assert status == 200
    return dict(json.loads(body))


def test_the_page_is_the_report_s_and_only_it_may_ask(run):
    with served(run) as server:
        status, headers, body = ask(server)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        page = body.decode()
        policy = re.search(r'Content-Security-Policy" content="(.+?)"', page)[1]
        assert policy.startswith("default-src 'none'; script-src 'nonce-")
        assert policy.endswith("connect-src 'self'")
        assert 'id="live"' in page
        assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert "Access-Control-Allow-Origin" not in headers
        for path in ("/", "/state.json", "/parts/head.json"):
            _, headers, body = ask(server, path)
            status, same, nothing = ask(server, path, "HEAD")
            assert (status, same["Content-Length"], nothing) == (200, str(len(body)), b"")
            status, _, nothing = ask(server, path, **{"If-None-Match": f'W/{headers["ETag"]}, "x"'})
            assert (status, nothing) == (304, b"")


def test_it_reads_only_and_knows_its_name(run):
    with served(run) as server:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
            status, headers, _ = ask(server, "/state.json", method)
            assert (status, headers["Allow"]) == (405, "GET, HEAD")
        for method in ("PROPFIND", "get", "FOO"):  # of which Python's server would make a page of its own, and a 501
            status, headers, body = ask(server, "/", method)
            assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"this server reads only\n")
        status, headers, body = ask(server, "/" + "x" * 70_000)
        assert (status, headers["Content-Type"], body.count(b"\n")) == (414, "text/plain; charset=utf-8", 1)
        for words, code in ((b"no request\r\n\r\n", b"400"), (b"GET / HTTP/9.9\r\n\r\n", b"505")):
            with socket.create_connection(("127.0.0.1", server.server_port), timeout=240) as connection:
                connection.sendall(words)
                said = connection.makefile("rb").read()
            assert b"<" not in said
            assert not said.startswith(b"HTTP") or said.split()[1] == code
        for path in ("/parts/../zarr.json.json", "/parts/%2e%2e/zarr.json", "/zarr.json", "//etc/passwd", "/parts/"):
            assert ask(server, path)[0] == 404, path
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "[x]", ""):
            assert ask(server, Host=host)[0] == 421, host
        for host in ("localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:80"):
            assert ask(server, "/state.json", Host=host)[0] == 200, host


def spoken(server: Server, words: bytes) -> bytes:
    """Return all that is answered until the server ends the connection, which it has to."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(words)
        return connection.makefile("rb").read()


def test_a_connection_stays_open_for_who_reads_and_ends_with_a_refusal(run):
    asks = b"GET /state.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(run) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.connect()
        connection.auto_open = 0  # else it would open another one, and say nothing
        try:
            tag = None
            for status in (200, 304, 200):
                connection.request("GET", "/state.json", headers={"If-None-Match": tag} if status == 304 else {})
                reply = connection.getresponse()
                body = reply.read()
                assert (reply.status, bool(body)) == (status, status == 200)
                assert "Content-Length" in reply.headers or status == 304
                tag = reply.headers["ETag"]
        finally:
            connection.close()
        # What follows a request that is refused may be anything, and is not read.
        for refused, code in ((b"POST", b"405"), (b"FOO", b"405")):
            said = spoken(server, refused + asks[3:-2] + b"Content-Length: %d\r\n\r\n" % len(asks) + asks)
            assert said.count(b"HTTP/1.1 ") == 1, said
            assert said.split()[1] == code
        said = spoken(server, asks + b"GET /" + b"x" * 70_000 + b"\r\n\r\n" + asks)
        assert [part.split()[0] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"200", b"414"]


def test_servers_take_ports_that_are_free_and_say_what_went_wrong_but_not_who_left(run, capsys):
    with Server(run.path) as one, Server(run.path) as other:
        assert one.server_port != other.server_port
        assert one.url == f"http://127.0.0.1:{one.server_port}/"
        assert one.is_local
        assert one.server_address[0] == "127.0.0.1"  # nobody else reaches it
        for error, said in (
            (ValueError("two\nlines"), "featdyn: "),
            (ConnectionResetError("gone"), ""),
            (TimeoutError("silent"), ""),
        ):
            try:
                raise error
            except Exception:
                one.handle_error(None, None)
            out, err = capsys.readouterr()
            assert (out, err.count("\n")) == ("", 1 if said else 0)
            assert err.startswith(said)
        one.handle_error(None, None)  # nothing went wrong
        assert capsys.readouterr().err == ""
    with Server(run.path, "0.0.0.0") as open_to_all:
        assert not open_to_all.is_local


def test_what_has_changed_is_made_anew_and_nothing_else(run, monkeypatch):
    made, read = [], []
    chapter, block = chapters.chapter, Run.block
    monkeypatch.setattr(chapters, "chapter", lambda run, name: made.append(name) or chapter(run, name))
    monkeypatch.setattr(
        Run, "block", lambda self, path, t, b, **k: read.append((path, t)) or block(self, path, t, b, **k)
    )
    with served(run) as server:
        before = state(server)
        assert made == ["consistency"]
        assert len(read) == 3 * len(CUBE)
        extend(run)
        after = state(server)
        assert after["commit"] == before["commit"] + 1
        assert made == ["consistency"]
        assert sorted(read[3 * len(CUBE) :]) == sorted((f"cube/{name}", 3) for name in CUBE)
        changed = {name for name, tag in after["parts"] if dict(before["parts"])[name] != tag}
        assert {"head", "training", "layers", "result-consistency"} <= changed  # its sliders have a place more
        assert "overview" in changed  # which says that the result is behind by now
        part = json.loads(ask(server, "/parts/training.json")[2])
        assert part["checkpoints"] == [0, 1, 2, 3]
        loss = part["figures"]["training-0-1"][""]["data"][1]["y"]
        assert len(loss) == 4
        with RunWriter.open(run.path) as writer:
            writer.result("drift", declared_result(analyses()["drift"]))
        news = state(server)
        assert [name for name, _ in news["parts"]][3:5] == ["result-consistency", "result-drift"]
        assert made == ["consistency", "drift"]
        assert dict(news["parts"])["training"] == dict(after["parts"])["training"]
        read.clear()
        assert state(server) == news
        assert not read


def test_a_store_that_is_gone_damaged_or_another(run):
    aside = run.path.with_name("aside")
    with served(run) as server:
        before = state(server)
        os.rename(run.path, aside)
        gone = state(server)
        assert "no " in gone["problem"]
        assert gone["parts"] == before["parts"]
        assert ask(server)[0] == 200
        os.rename(aside, run.path)
        assert state(server) == before
        root = run.path / "zarr.json"
        whole = root.read_bytes()
        root.write_bytes(whole[: len(whole) // 2])
        assert "\n" not in state(server)["problem"] != ""
        root.write_bytes(whole)
        assert state(server) == before
        shutil.rmtree(run.path)
        make_run(run.path, checkpoints=5, curves=())  # as many commits, of another run
        another = state(server)
        assert another["problem"] == ""
        assert "result-consistency" not in dict(another["parts"])
        assert json.loads(ask(server, "/parts/layers.json")[2])["checkpoints"] == [0, 1, 2, 3, 4]


def test_the_command_says_where_and_ends_when_told(run, featdyn):
    command = [sys.executable, "-u", str(ROOT / "cli.py"), "serve", str(run.path)]
    for how in (signal.SIGTERM, signal.SIGINT):
        # Who starts the tests in the background has them, and their children, ignore Ctrl-C.
        heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
        ) as child:
            said = child.stdout.readline()
            port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", said)[1])
            with socket.create_connection(("127.0.0.1", port)):  # one that stays open holds nobody up
                code, _, err = featdyn("serve", run.path, "--port", port)
                assert (code, err.count("\n")) == (1, 1)
                assert f"127.0.0.1, port {port}: Address already in use; --port 0 takes a port that is free" in err
                child.send_signal(how)
                assert child.wait(240) == 0
            assert (child.stdout.read(), child.stderr.read()) == ("ended\n", "")


def test_what_cannot_be_served_is_one_line(tmp_path, run, featdyn):
    for arguments, words in (
        ([tmp_path / "nowhere.zarr"], "nowhere.zarr"),
        ([run.path, "--host", "no.such.host.invalid"], "no.such.host.invalid, port 0: "),
        ([run.path, "--port", "65536"], "65536"),
    ):
        code, out, err = featdyn("serve", *arguments)
        assert code in (1, 2)
        assert (out, err.count("\n")) == ("", 1)
        assert words in err


def test_it_needs_no_torch_and_warns_where_others_reach_it(run):
    code = """
import sys
for name in ("torch", "numba", "sklearn", "PIL", "matplotlib", "dask"):
    sys.modules[name] = None
from featdyn.report.server import Server
with Server(sys.argv[1]) as server, Server(sys.argv[1], "0.0.0.0") as other:
    print(server.is_local, other.is_local, len(server.watched.look().page()) > 100_000)
"""
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True)
    assert done.stdout == "True False True\n"


def test_new_checkpoints_and_results_come_into_a_page_that_is_open(run, tmp_path, monkeypatch):
    monkeypatch.setattr(document, "POLL", 100)
    with browser(tmp_path / "profile") as driver, served(run) as server:
        driver.get(server.url)
        until(driver, READY)
        driver.execute_script("document.querySelector('#layers').scrollIntoView()")
        driver.execute_script("document.querySelector('#layers input[name=set][value=\"0\"]').click()")
        points = "return document.querySelector('[data-slot=layers-0-0]').data?.[0].y.length === arguments[0]"
        until(driver, points, 3)
        driver.execute_script("window.kept = document.querySelector('[data-slot=layers-0-0]')")
        extend(run)
        until(driver, points, 4)
        assert driver.execute_script("return document.querySelector('[data-slot=layers-0-0]') === window.kept")
        chosen = "return document.querySelector('#layers input[name=set]:checked').value"
        assert driver.execute_script(chosen) == "0"
        sliders = (
            "return [...document.querySelectorAll('input[name=t]')].every((e) => e.max === '3' && e.value === '3')"
        )
        until(driver, sliders)
        with RunWriter.open(run.path) as writer:
            writer.result("drift", declared_result(analyses()["drift"], checkpoints=4))
        until(driver, "return document.querySelector('nav a[href=\"#drift\"]') && document.querySelector('#drift h2')")
        order = driver.execute_script("return [...document.querySelectorAll('[data-part]')].map((e) => e.dataset.part)")
        assert order == list(server.watched.look().parts)
        aside = run.path.with_name("aside")
        os.rename(run.path, aside)
        said = "return document.getElementById('live').textContent.includes(arguments[0])"
        until(driver, said, "cannot be read now")
        os.rename(aside, run.path)
        until(driver, said, "Live: commit 6, 4 checkpoints.")
        assert [e for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
        driver.execute_cdp_cmd("Network.enable", {})
        for offline, words in ((True, "does not answer"), (False, "Live: commit 6")):
            limits = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
            driver.execute_cdp_cmd("Network.emulateNetworkConditions", limits)
            until(driver, said, words)
