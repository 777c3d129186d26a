"""What people do with stores, on a bucket: train, ask, be killed, meet others, and be told what is wrong."""

from __future__ import annotations

import http.server
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from featdyn.store import Run, RunWriter, bucket, client, exists, lease, locate, verify
from featdyn.training import load
from tests.engine import small_run
from tests.engine.buckets import contents
from tests.engine.forked import start
from tests.engine.runs import refused, write_run
from tests.engine.test_training import TINY, files_of


def test_a_run_in_a_bucket_is_the_run_on_disk(featdyn, url, tmp_path):
    changes = [part for change in (*TINY, "training.epochs=1") for part in ("--set", change)]
    for store in (url, tmp_path / "run.zarr"):
        code, out, err = featdyn("train", "digits", "--store", store, *changes)
        assert (code, err) == (0, "")
        assert ("what is free there is not known" in out) == (store == url)
    there = {p: c for p, c in contents(url).items() if not p.endswith(("zarr.json", "root.json"))}
    assert there == files_of(tmp_path / "run.zarr")
    roots = [json.loads(locate(store).read("zarr.json")) for store in (url, tmp_path / "run.zarr")]
    for root in roots:
        root["attributes"].pop("provenance")  # tells the time, on which the checksum depends
        root["attributes"]["featdyn"].pop("root_crc32c")
    assert roots[0] == roots[1]

    before = contents(url)
    assert featdyn("train", "digits", "--store", url, *changes)[0] == 0  # again: nothing left to do
    assert contents(url) == before
    code, _, err = featdyn("train", "digits", "--store", url, *changes, "--set", "training.seed=1")
    assert (code, err.count("\n")) == (1, 1)
    assert "was made by another recipe" in err

    for store in (url, tmp_path / "run.zarr"):
        assert featdyn("analyze", store, "consistency")[0] == 0
    query = ("results.consistency.accuracy", "--where", "set=test", "--format", "csv")
    assert featdyn("query", url, *query) == featdyn("query", tmp_path / "run.zarr", *query)
    info = json.loads(featdyn("info", url, "--json")[1])
    assert info["store"] == url
    assert {**info, "store": 0, "provenance": 0} == {
        **json.loads(featdyn("info", tmp_path / "run.zarr", "--json")[1]),
        "store": 0,
        "provenance": 0,
    }
    assert featdyn("report", url, "-o", tmp_path / "report.html")[0] == 0
    assert "run.zarr" in (tmp_path / "report.html").read_text()
    code, out, _ = featdyn("compare", url, "--format", "json")
    assert (code, len(json.loads(out)) > 0) == (0, True)
    code, out, _ = featdyn("verify", url)
    assert (code, out.endswith("sound\n")) == (0, True)


def test_a_sweep_into_a_bucket(featdyn, url):
    changes = [part for change in (*TINY, "training.epochs=1") for part in ("--set", change)]
    folder = url.removesuffix("/run.zarr")
    for _ in range(2):
        code, out, err = featdyn("train", "digits", "--store", folder, *changes, "--sweep", "labels.noise=0,0.5")
        assert (code, err, out.count("done")) == (0, "", 2)
    assert Run(f"{folder}/labels.noise=0.5.zarr").attributes["recipe"]["labels"]["noise"] == 0.5


def test_a_run_that_is_interrupted_ends_with_the_same_objects(url, tmp_path):
    from featdyn.training.stage import Events, train

    class Stop(Exception):
        pass

    def interrupt(step, steps, loss):
        if step == 7:
            raise Stop

    with pytest.raises(Stop):
        train(load("digits", TINY), url, Events(step=interrupt))
    train(load("digits", TINY), url)
    train(load("digits", TINY), tmp_path / "run.zarr")
    there = {p: c for p, c in contents(url).items() if not p.endswith(("zarr.json", "root.json"))}
    assert there == files_of(tmp_path / "run.zarr")


def killed_at_random(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, kills: int, seed: int) -> None:
    generator, later, seen = random.Random(seed), 0.0, 0
    monkeypatch.setattr(lease, "now", lambda: time.time() + later)
    folder.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for number in range(kills):
        here, there = multiprocessing.Pipe()
        errors = folder / f"errors-{number}"
        child = start(small_run.record_without_end, url, later, environment, str(errors), there)
        assert here.recv() == "ready"
        time.sleep(generator.uniform(0.1, 1.0))
        child.kill()
        child.join(60)
        assert errors.read_text() == ""
        if exists(url):
            assert verify(url).sound
            assert Run(url).checkpoints >= seen
            seen = Run(url).checkpoints
        later += lease.SECONDS + 1
    small_run.record(url, "c" * (seen + 1))
    small_run.record(folder / "undisturbed.zarr", "c" * (seen + 1))
    for path, content in contents(folder / "undisturbed.zarr").items():
        assert path in ("zarr.json", "commits/root.json") or locate(url).read(path) == content
    np.testing.assert_array_equal(Run(url).tree["layers/a/activation"][:, 2], [[t, 2] for t in range(seen + 1)])


def test_killed_processes(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed_at_random(url, tmp_path, monkeypatch, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_killed_processes(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for trial in range(10):
        killed_at_random(f"{url}/{trial}", tmp_path / f"{trial}", monkeypatch, kills=4, seed=trial)


def test_two_processes_record_one_run(url: str, tmp_path: Path) -> None:
    """Each commits what the other has not, and is refused while the other writes: the bytes are those of one."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    plan = "ccrcr"
    two = [start(small_run.record_patiently, url, plan, str(tmp_path), environment) for _ in range(2)]
    while any(process.is_alive() for process in two):
        if exists(url):
            small_run.check(Run(url))  # who reads meanwhile sees whole commits
    assert [process.exitcode for process in two] == [0, 0]
    said = {line for log in tmp_path.iterdir() if log.is_file() for line in log.read_text().splitlines()}
    known = "STORE is being written by", "another writer", "a store is there already"
    assert all(any(words in line for words in known) for line in said), said
    assert verify(url).sound
    small_run.record(tmp_path / "undisturbed.zarr", plan)
    assert contents(url) == contents(tmp_path / "undisturbed.zarr")


def test_a_second_process_is_refused(url: str) -> None:
    write_run(url, checkpoints=1)
    code = "import sys; from featdyn.store import RunWriter; RunWriter.open(sys.argv[1])"
    with RunWriter.open(url):
        child = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
        assert child.returncode == 1
        assert f"is being written by process {os.getpid()} on " in child.stderr
        assert Run(url).checkpoints == 1  # readers are not
    subprocess.run([sys.executable, "-c", code + ".close()", url], check=True)


class Answer(http.server.BaseHTTPRequestHandler):
    """A server that has one answer; it waits with it until all is over, where it is ``mute``."""

    status, body, mute, over = 500, b"", False, threading.Event()

    def do_GET(self) -> None:
        if self.mute:
            self.over.wait()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_PUT = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Does not print that a client has gone before its answer came."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answer]]:
    server = Server(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setitem(client.QUICK, "retries", 1)
    monkeypatch.setattr(Answer, "over", threading.Event())
    yield Answer
    Answer.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_a_server_refuses_is_one_line(s3: str, answering: type[Answer], featdyn, monkeypatch) -> None:
    url = f"{s3}/run.zarr"
    for status, body, line in [
        (403, b"<Error><Code>AccessDenied</Code></Error>", r"access denied \(403 Forbidden: AccessDenied\): check the"),
        (401, b"", r"access denied \(401 Unauthorized\): check the credentials"),
        (503, b"<Error><Code>SlowDown</Code></Error>", "the object store answered 503 Service Unavailable: SlowDown"),
        (200, b"<html>hello</html>", "not a featdyn store"),
    ]:
        monkeypatch.setattr(answering, "status", status)
        monkeypatch.setattr(answering, "body", body)
        refused(lambda: Run(url), line)
        refused(lambda: RunWriter.open(url), line)
        code, out, err = featdyn("info", url)
        assert (code, out, err.count("\n")) == (1, "", 1)
    monkeypatch.setitem(client.QUICK, "timeout", 1)
    monkeypatch.setitem(client.QUICK, "retries", 0)
    monkeypatch.setattr(answering, "mute", True)
    refused(lambda: Run(url), "no answer in time: check the network")


def test_what_cannot_be_reached_is_one_line(s3: str, featdyn, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bucket, "PATIENT", None)  # that is for who has begun to record, and somebody waits here
    monkeypatch.setattr(client, "READING", math.inf)

    def line(url: str, message: str) -> None:
        for command in (("info", url), ("train", "digits", "--store", url), ("analyze", url, "drift"), ("verify", url)):
            code, out, err = featdyn(*command)
            assert (code, out, err.count("\n")) == (1, "", 1), err
            assert message in err, err

    line("s3://no-such-bucket/run.zarr", "s3://no-such-bucket/run.zarr: no such bucket")
    line("s3:///run.zarr", "not a URL of a bucket: write s3://bucket/path")
    line("ftp://host/run.zarr", "ftp://host/run.zarr: stores are folders, or s3://, gs://, az:// URLs")
    line("s3:/runs/run.zarr", "stores are folders, or s3://")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    line(f"{s3}/run.zarr", "cannot be reached: check the network, and AWS_ENDPOINT_URL if it is set")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    line(f"{s3}/run.zarr", "set AWS_ALLOW_HTTP=true to allow that")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    line(f"{s3}/run.zarr", "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    refused(lambda: Run(Path("s3://runs/run.zarr")), "give a URL as text, not as a Path")
    assert not list(tmp_path.iterdir())
