"""The server of a review: who is answered, with what, and that no decision is lost."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from PIL import Image

from divacli.errors import OutputError
from divacli.report.page.server import ReviewServer


@pytest.fixture
def ask(make_scored: Callable[..., Any], serving: Callable[..., str]) -> Callable[..., Any]:
    """Ask the server of fresh results: path below the secret, and a body to post."""
    scored = make_scored(n=21)
    return asking(scored, serving(scored))


@pytest.fixture(scope="module")
def refused(make_scored: Callable[..., Any], serve_all: Callable[..., ReviewServer]) -> Callable[..., Any]:
    """Ask a server what it refuses: nothing is decided about its results."""
    scored = make_scored(n=21)
    return asking(scored, serve_all(scored).address)


def asking(scored: Any, served: str) -> Callable[..., Any]:
    """What asks the server of these results, at an address."""
    address = urlsplit(served)

    def asked(
        path: str, body: object = None, host: str | None = None, root: str | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        headers = {} if host is None else {"Host": host}
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(
            "GET" if body is None else "POST",
            (root or address.path) + path,
            content,
            headers,  # type: ignore[arg-type]
        )
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    asked.scored = scored  # type: ignore[attr-defined]
    asked.address = (address.hostname, address.port)  # type: ignore[attr-defined]
    asked.root = address.path  # type: ignore[attr-defined]
    return asked


def places(ask: Callable[..., Any]) -> list[str]:
    return json.loads(ask("data")[1])["samples"]["place"]


def connected(ask: Callable[..., Any]) -> socket.socket:
    return socket.create_connection(ask.address, timeout=5)  # type: ignore[attr-defined]


def test_all_samples_their_images_and_neighbours(ask: Callable[..., Any]) -> None:
    status, page = ask("")
    assert status == 200
    assert b"<title>diva report: out</title>" in page
    data = json.loads(ask("data")[1])
    assert len(data["samples"]["path"]) == 21
    assert {one["name"]: one["total"] for one in data["galleries"]}["all"] == 21
    for name, side in (("thumbnail/3", 24), ("thumbnail/3?small", 24), ("image/3", 24)):
        status, content = ask(name)
        assert status == 200
        assert Image.open(io.BytesIO(content)).size == (side, side)
    near = json.loads(ask("near?rows=0,5")[1])
    labels = data["samples"]["label"]
    for row, (own, suggested) in zip((0, 5), near, strict=True):
        assert {labels[number] for number, _ in own} == {labels[row]}
        assert {labels[number] for number, _ in suggested} == {data["samples"]["suggested"][row]}
        assert row not in [number for number, _ in own]


@pytest.mark.parametrize(
    ("path", "host", "root", "status"),
    [
        ("data", None, "/", 403),
        ("data", None, "/guess/", 403),
        ("data", "evil.example", None, 403),
        ("thumbnail/21", None, None, 404),
        ("thumbnail/-1", None, None, 404),
        ("thumbnail/../../etc/passwd", None, None, 404),
        ("image/x", None, None, 404),
        ("nothing", None, None, 404),
    ],
)
def test_others_and_other_things_are_refused(
    refused: Callable[..., Any], path: str, host: str | None, root: str | None, status: int
) -> None:
    assert refused(path, host=host, root=root)[0] == status


def decide(ask: Callable[..., Any], *changes: tuple[str, str | None, str]) -> tuple[int, bytes]:
    return ask("decisions", [dict(zip(("place", "decision", "label"), one, strict=True)) for one in changes])


def test_decisions_are_made_changed_and_taken_back(ask: Callable[..., Any]) -> None:
    file = ask.scored.folder / "decisions.csv"  # type: ignore[attr-defined]
    first, second = sorted(places(ask)[:2])
    assert decide(ask, (first, "drop", ""), (second, "relabel", "=x"))[0] == 200
    assert pd.read_csv(file)[["path", "decision"]].to_numpy().tolist() == [
        [first, "drop"],
        [second, "relabel"],
    ]
    assert decide(ask, (first, None, ""))[0] == 200
    found = json.loads(ask("data")[1])["decisions"]
    assert [row[:3] for row in found] == [[second, "relabel", "=x"]]


@pytest.mark.parametrize(
    "body",
    [
        [{"place": "/etc/passwd", "decision": "drop"}],
        [{"decision": "drop"}],
        [{"place": 0, "decision": "explode"}],
        [{"place": 0, "decision": "relabel", "label": ""}],
        [{"place": 0, "decision": "relabel", "label": " "}],
        [{"place": 0, "decision": "relabel", "label": "x" * (4 << 20)}],
        [{"place": 0, "decision": "relabel", "label": "\ud800"}],
        [{"place": 0, "decision": "relabel", "label": 5}],
        [{"place": 0, "decision": "relabel", "label": ["a"]}],
        [{"place": 0, "decision": "relabel", "label": None}],
        [{"place": 0, "decision": ["relabel"], "label": "a"}],
        [{"place": ["a"], "decision": "drop"}],
        [{"place": 0, "decision": "drop"}, {"place": "/etc/passwd", "decision": "drop"}],
        [3],
        3,
        b"{",
    ],
)
def test_what_is_no_decision_is_refused_whole(refused: Callable[..., Any], body: Any) -> None:
    if isinstance(body, list) and isinstance(body[0], dict) and body[0].get("place") == 0:
        body[0]["place"] = places(refused)[0]
    status, reason = refused("decisions", body)
    assert status == 400
    assert len(reason.splitlines()) == 1
    assert json.loads(refused("data")[1])["decisions"] == []
    assert not (refused.scored.folder / "decisions.csv").exists()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "request_line",
    [b"GET http://[ HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", b"\r\n\r\n"],
)
def test_nonsense_is_answered_without_a_trace(
    refused: Callable[..., Any], request_line: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with connected(refused) as connection:
        connection.sendall(request_line)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert refused("data")[0] == 200
    assert capfd.readouterr().err == ""


def test_too_long_a_body_is_refused_unread(refused: Callable[..., Any]) -> None:
    with connected(refused) as connection:
        start = f"POST {refused.root}decisions HTTP/1.1\r\n"  # type: ignore[attr-defined]
        connection.sendall(start.encode() + b"Content-Length: 99999999999\r\n\r\n")
        assert b"413" in connection.recv(4096)


def test_the_address_without_its_last_slash_leads_to_the_page(refused: Callable[..., Any]) -> None:
    root = refused.root.rstrip("/")  # type: ignore[attr-defined]
    assert refused("", root=root)[0] == 301


def test_a_decision_that_cannot_be_written_is_not_made(
    ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places(ask)[0]

    def full(*arguments: object) -> None:
        raise OutputError("decisions.csv cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("divacli.manifest.write.write_bytes", full)
        status, message = decide(ask, (place, "drop", ""))
        assert (status, b"No space left" in message) == (507, True)
        assert json.loads(ask("data")[1])["decisions"] == []
    assert decide(ask, (place, "drop", ""))[0] == 200


def test_the_address_is_not_on_a_command_line(
    make_scored: Callable[..., Any], serve: Callable[..., ReviewServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = make_scored(n=21)
    server = serve(scored)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with server.shown(scored.folder):
        file = Path(unquote(urlsplit(opened[0]).path))
        assert server.secret not in opened[0]
        assert server.address in file.read_text()
        assert file.stat().st_mode & 0o077 == 0
    assert not file.exists()
