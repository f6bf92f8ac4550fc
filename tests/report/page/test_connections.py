"""Connections of a review: strangers, who do not know the secret, keep nobody from being answered."""

from __future__ import annotations

import errno
import http.client
import json
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest

from divacli.manifest import manifest_of
from divacli.report.page.connections import KNOWN_SECONDS, STRANGER_SECONDS, _most_connections
from divacli.report.page.payload import places_of
from divacli.report.page.server import Review, ReviewServer, _Handler
from divacli.review.ledger import Ledger

LIMIT = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    """Serve a review of two samples."""
    samples = manifest_of(pd.DataFrame({"path": ["a.png", "b.png"], "label": ["a", "b"]}), tmp_path)
    places = places_of(samples)
    ledger = Ledger(tmp_path, samples, places)
    found = ReviewServer(Review("<html>", {"places": places}, [None, None], None, ledger))
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()
    ledger.close()


@pytest.fixture
def connect(server: ReviewServer) -> Iterator[Callable[[], socket.socket]]:
    """Open a connection that says nothing."""
    with ExitStack() as opened:
        yield lambda: opened.enter_context(
            socket.create_connection(server.server_address[:2], timeout=20)  # type: ignore[arg-type]
        )


def ask(server: ReviewServer, path: str, body: object = None) -> tuple[int, bytes]:
    address = urlsplit(server.address)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    try:
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", address.path + path, content)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def show_secret(server: ReviewServer, connection: socket.socket) -> None:
    """Ask for something, and keep the connection."""
    address = urlsplit(server.address)
    connection.sendall(f"GET {address.path}nothing HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\nNot Found"):
        answer += connection.recv(4096) or pytest.fail("closed")


@pytest.mark.parametrize("said", [b"", b"GE", b"GET /guess/ HTTP/1.1"])
def test_those_who_know_the_secret_are_answered_however_many_strangers_there_are(
    server: ReviewServer, connect: Callable[[], socket.socket], said: bytes
) -> None:
    before = threading.active_count()
    known = connect()
    show_secret(server, known)
    for _ in range(LIMIT + 20):
        connect().sendall(said)
    status, content = ask(server, "data")
    assert status == 200
    place = json.loads(content)["places"][0]
    for _ in range(LIMIT + 20):
        connect().sendall(said)
    assert ask(server, "decisions", [{"place": place, "decision": "drop"}]) == (200, b"{}")
    assert pd.read_csv(server.review.ledger.file)["decision"].tolist() == ["drop"]
    assert threading.active_count() - before <= LIMIT
    show_secret(server, known)


def test_the_oldest_stranger_makes_room(
    server: ReviewServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_most", 3)
    known = connect()
    show_secret(server, known)
    first, second, third = connect(), connect(), connect()
    assert first.recv(1) == b""
    for one in (known, second, third):
        show_secret(server, one)


def test_where_all_know_the_secret_another_one_is_closed(
    server: ReviewServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_most", 2)
    known = [connect(), connect()]
    for one in known:
        show_secret(server, one)
    assert connect().recv(1) == b""
    for one in known:
        show_secret(server, one)


def test_a_stranger_is_refused_before_the_rest_of_the_request_is_read(
    connect: Callable[[], socket.socket],
) -> None:
    stranger = connect()
    stranger.sendall(b"POST /guess/decisions HTTP/1.1\r\n")
    answer = b""
    while part := stranger.recv(4096):
        answer += part
    assert answer.startswith(b"HTTP/1.1 403 ")


def test_a_silent_stranger_is_closed_and_who_has_shown_the_secret_has_more_time(
    server: ReviewServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _Handler.timeout == STRANGER_SECONDS
    known = connect()
    show_secret(server, known)
    assert [one.gettimeout() for one in server._connections] == [KNOWN_SECONDS]
    monkeypatch.setattr(_Handler, "timeout", 0.01)
    assert connect().recv(1) == b""
    show_secret(server, known)


class Exhausted:
    """A listening socket of a process that may open no more."""

    def accept(self) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def close(self) -> None:
        """Nothing is to be closed."""


def test_without_a_descriptor_a_stranger_makes_room_and_else_the_server_pauses(
    server: ReviewServer, connect: Callable[[], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger, known = connect(), connect()
    show_secret(server, known)
    server.shutdown()  # the loop that takes connections: it is played here
    monkeypatch.setattr(server, "socket", Exhausted())
    with pytest.raises(OSError, match="Too many"):
        server.get_request()
    assert stranger.recv(1) == b""
    pauses: list[float] = []
    monkeypatch.setattr(server._ended, "wait", pauses.append)
    with pytest.raises(OSError, match="Too many"):
        server.get_request()
    assert pauses == [1.0]
    show_secret(server, known)


@pytest.mark.parametrize(("allowed", "most"), [(64, 16), (20_000, LIMIT), (resource.RLIM_INFINITY, LIMIT)])
def test_the_limit_leaves_descriptors_for_images(
    monkeypatch: pytest.MonkeyPatch, allowed: int, most: int
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (allowed, allowed))
    assert _most_connections() == most
