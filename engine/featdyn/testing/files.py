"""What a place says of single files, and does with them."""

# ruff: noqa: D102  the names of tests say what is promised

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import copy

import pytest

from featdyn.errors import StoreError
from featdyn.store.commit import Listing
from featdyn.store.place import GONE, Place
from featdyn.store.record import FileRecord, crc32c

ODD = ["run#1", "a?lr=1", "100%", "%20", "~", "a b", "größe", "データ", "a=0.5,[x]", "a+b&c", "it's", "x:y", "@", "a;b"]
OUTSIDE = ["", ".", "..", "../x", "a/../../x", "a//b", "/x", "a/", "a\\b", "a\0b"]
PIECES = [[], [b""], [b"one"], [b"one", b"", b"two"], [bytes(range(256)) * 2000, b"end"]]


class FileTests:
    """What :class:`~featdyn.store.place.Place` says of files; ``place`` is to be given."""

    @pytest.fixture
    def place(self) -> Place:
        """Return the place, at which nothing is yet."""
        raise NotImplementedError

    @pytest.fixture
    def denied(self) -> Callable[[Place, str], AbstractContextManager[object]]:
        """Return how one file of a place can be kept from who has it open; without it that is not tested."""
        pytest.skip("nobody says how a file can be denied here")

    @pytest.fixture
    def writing(self, place: Place) -> Iterator[Place]:
        """Return the place in its writer's hands."""
        place.make()
        with place.lock():
            place.anchor()
            yield place

    def test_where_nothing_is_nothing_is_found_and_nothing_made(self, place: Place) -> None:
        assert place.empty()
        assert not place.exists("a/b")
        assert place.fetch("a/b") is None
        assert place.version("a/b") is None
        looks: list[Callable[[], object]] = [
            lambda: place.read("a/b"),
            lambda: place.view("a/b"),
            lambda: place.size("a/b"),
            lambda: place.part("a/b", 0, 1),
            lambda: list(place.pieces("a/b")),
        ]
        for look in looks:
            with pytest.raises(GONE):
                look()
        place.announce("a/b")
        assert place.check(FileRecord("a/b", 0, 0)) == "a/b: missing"
        assert place.whole(FileRecord("a/b", 0, 0)) == (b"", "a/b: missing")
        assert place.listing() == {}
        assert copy(place).empty()

    @pytest.mark.parametrize("pieces", PIECES, ids=[str(len(b"".join(pieces))) for pieces in PIECES])
    def test_what_was_written_is_read(self, writing: Place, pieces: list[bytes]) -> None:
        whole = b"".join(pieces)
        record = writing.write("a/b", pieces)
        writing.settle(["a/b"])
        assert record == FileRecord("a/b", len(whole), crc32c(whole))
        for seen in (writing, copy(writing)):
            assert seen.there()
            assert not seen.empty()
            assert seen.exists("a/b")
            assert seen.size("a/b") == len(whole)
            assert seen.read("a/b") == bytes(seen.view("a/b")) == b"".join(seen.pieces("a/b")) == whole
            found = seen.fetch("a/b")
            assert found == (whole, seen.version("a/b"))
            for start, length in ((0, len(whole)), (0, 1), (len(whole) // 2, 2 * len(whole)), (len(whole) // 2, 0)):
                if whole:
                    assert bytes(seen.part("a/b", start, length)) == whole[start : start + length]
            assert (seen.check(record), seen.whole(record)) == (None, (whole, None))

    def test_a_file_that_is_not_as_it_was_written_is_found_out(self, writing: Place) -> None:
        record = writing.write("a/b", [b"content"])
        for content in (b"Content", b"conten", b"contents", b""):
            writing.replace("a/b", content)
            said = writing.check(record)
            assert said
            assert said.startswith("a/b: ")
            assert writing.whole(record)[1] == said
            assert (writing.check(record, content=False) is None) == (len(content) == record.size)
            assert (writing.incomplete(Listing([record], [], [])) is None) == (len(content) == record.size)

    def test_any_name_is_a_name_like_another(self, writing: Place) -> None:
        paths = [path for name in ODD for path in (name, f"in/{name}/c.0")]
        for path in paths:
            writing.write(path, [path.encode()])
        assert dict(writing.walk("in")) == {p: len(p.encode()) for p in paths if p.startswith("in/")}
        found = {path: size for path, size in copy(writing).listing().items() if path in paths}
        assert found == {path: len(path.encode()) for path in paths}
        for path in paths:
            assert (writing.read(path), writing.exists(f"{path}x")) == (path.encode(), False)
        for path in paths[::2]:
            writing.remove(path)
        assert {p for p in writing.listing() if p in paths} == set(paths[1::2])

    def test_what_begins_as_a_folder_is_called_is_not_in_it(self, writing: Place) -> None:
        for path in ("a/c", "ab/c", "a.b"):
            writing.write(path, [b"x"])
        assert dict(writing.walk("a")) == {"a/c": 1}
        assert dict(writing.walk("nowhere")) == {}
        assert not writing.exists("ab/c/d")

    @pytest.mark.parametrize("path", OUTSIDE)
    def test_no_path_leads_out(self, writing: Place, path: str) -> None:
        before = writing.listing()
        calls: list[Callable[[], object]] = [
            lambda: writing.inside(path),
            lambda: writing.write(path, [b"x"]),
            lambda: writing.replace(path, b"x"),
            lambda: writing.remove(path),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="is not a path inside a store"):
                call()
        assert writing.check(FileRecord(path, 1, 0)) == f"{path}: leads out of the store or through a symbolic link"
        assert writing.listing() == before

    def test_a_write_that_fails_leaves_nothing_half(self, writing: Place) -> None:
        def fail() -> Iterator[bytes]:
            yield b"half"
            raise ZeroDivisionError

        before = writing.listing()
        with pytest.raises(ZeroDivisionError):
            writing.write("a/b", fail())
        assert writing.listing() == before
        record = writing.write("a/b", [b"whole"])
        assert writing.check(record) is None

    def test_a_file_is_published_over_what_its_writer_saw(self, writing: Place) -> None:
        first = writing.publish("root", b"1", writing.version("root"))
        second = writing.publish("root", b"2", first)
        assert writing.fetch("root") == (b"2", second)
        if first == second:  # the lock keeps all others away
            return
        for stale in (first, None):
            with pytest.raises(StoreError, match="another writer"):
                writing.publish("root", b"3", stale)
        assert writing.fetch("root") == (b"2", second)

    def test_who_reads_a_file_while_it_is_replaced_sees_one_content_whole(self, writing: Place) -> None:
        contents = [bytes([number]) * (1 + 999 * number) for number in range(20)]
        writing.replace("root", contents[0])
        begun, done, seen, reader = threading.Event(), threading.Event(), [], copy(writing)

        def read() -> None:
            try:
                while not done.is_set():
                    seen.append(reader.read("root"))
                    seen.append(b"".join(reader.pieces("root")))
                    begun.set()
            finally:
                begun.set()

        thread = threading.Thread(target=read)
        thread.start()
        begun.wait()
        for content in contents:
            writing.replace("root", content)
        done.set()
        thread.join()
        assert seen
        assert not set(seen) - set(contents)
        assert writing.read("root") == contents[-1]

    def test_what_no_commit_names_can_be_given_up_and_removed(self, writing: Place) -> None:
        kept = writing.write("a/kept", [b"x"])
        for path in ("a/given", "a/in/removed", "b/cleared"):
            writing.write(path, [b"y"])
        writing.give_up("a/given")  # where room is scarce
        writing.clear(lambda path: path == "b/cleared")
        writing.remove("a/in/removed")
        assert not writing.exists("a/in/removed")
        assert writing.check(kept) is None

    def test_what_cannot_be_read_now_is_neither_sound_nor_gone(
        self, writing: Place, denied: Callable[[Place, str], AbstractContextManager[object]]
    ) -> None:
        record = writing.write("a/b", [b"x"])
        looks: list[Callable[[], object]] = [
            lambda: writing.read("a/b"),
            lambda: writing.fetch("a/b"),
            lambda: writing.check(record),
            lambda: writing.whole(record),
        ]
        with denied(writing, "a/b"):
            for look in looks:
                with pytest.raises(OSError) as caught:
                    look()
                assert not isinstance(caught.value, GONE)
                assert caught.value.strerror
                assert "\n" not in caught.value.strerror
        assert writing.check(record) is None
