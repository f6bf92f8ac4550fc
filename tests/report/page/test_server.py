"""The server of a review: who is answered, with what, and that no decision is lost."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
from PIL import Image

from divacli.errors import DataError
from divacli.report.page.server import Decisions


@pytest.fixture
def ask(make_scored: Callable[..., Any], serving: Callable[..., str]) -> Callable[..., Any]:
    """Ask the server of fresh results: path below the secret, and a body to post."""
    scored = make_scored(n=21)
    address = urlsplit(serving(scored))

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
    return asked


def places(ask: Callable[..., Any]) -> list[str]:
    return json.loads(ask("data")[1])["samples"]["place"]


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
    ask: Callable[..., Any], path: str, host: str | None, root: str | None, status: int
) -> None:
    assert ask(path, host=host, root=root)[0] == status


def test_a_decision_is_made_changed_and_taken_back(ask: Callable[..., Any]) -> None:
    file = ask.scored.folder / "decisions.csv"  # type: ignore[attr-defined]
    first, second = places(ask)[:2]
    assert ask("decision", {"place": first, "decision": "drop", "label": "red", "given": "red"})[0] == 200
    assert ask("decision", {"place": second, "decision": "relabel", "label": "=x", "given": "red"})[0] == 200
    assert pd.read_csv(file)["decision"].tolist() == (
        ["drop", "relabel"] if first < second else ["relabel", "drop"]
    )
    assert ask("decision", {"place": first, "decision": None})[0] == 200
    assert json.loads(ask("data")[1])["decisions"] == [[second, "relabel", "=x", "red"]]
    again = Decisions(file, places(ask))
    assert again.as_rows() == [[second, "relabel", "=x", "red"]]


@pytest.mark.parametrize(
    "body",
    [
        {"place": "/etc/passwd", "decision": "drop", "label": "a", "given": "a"},
        {"decision": "drop"},
        {"place": 0, "decision": "explode"},
        [],
        b"{",
    ],
)
def test_what_is_no_decision_is_refused(ask: Callable[..., Any], body: object) -> None:
    if isinstance(body, dict) and body.get("place") == 0:
        body["place"] = places(ask)[0]
    assert ask("decision", body)[0] == 400
    assert not (ask.scored.folder / "decisions.csv").exists()  # type: ignore[attr-defined]


def test_too_long_a_body_is_refused_unread(ask: Callable[..., Any]) -> None:
    assert ask("decision", b" " * 70_000)[0] == 413


def test_a_decision_that_cannot_be_written_is_not_made(ask: Callable[..., Any]) -> None:
    (ask.scored.folder / "decisions.csv").mkdir()  # type: ignore[attr-defined]
    place = places(ask)[0]
    status, message = ask("decision", {"place": place, "decision": "drop", "label": "a", "given": "a"})
    assert status == 507
    assert b"cannot be written" in message
    assert json.loads(ask("data")[1])["decisions"] == []


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "decisions.csv"
    file.write_text("path,label\na,b\n")
    with pytest.raises(DataError, match="decision"):
        Decisions(file, ["a"])
