"""Serve the page to a browser on this machine, and write every decision to disk at once."""

from __future__ import annotations

import hmac
import io
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

from divacli.curate.decisions import ACTIONS, DECISION_COLUMNS, RELABEL, decisions_of
from divacli.embed.images import UndecodableImage, decode_image
from divacli.errors import OutputError
from divacli.files import read_bytes
from divacli.manifest import write_table
from divacli.manifest.tabular import parse
from divacli.report.page.neighbours import Neighbours
from divacli.report.page.thumbnails import SIDE, SMALL_SIDE, thumbnail

HOST = "127.0.0.1"
"""Nobody but this machine is answered."""

_LARGE_SIDE = 1600
_MOST_ROWS = 512
_MOST_BYTES = 65_536
_REMEMBERED = 4096


class Decisions:
    """The decisions of a review, in a file that is whole at any time.

    Args:
        file: `decisions.csv`; decisions that it holds already are gone on from.
        places: What it calls each sample.

    Raises:
        DataError: The file holds no decisions.
    """

    def __init__(self, file: Path, places: Sequence[str]) -> None:
        self._file = file
        self._places = set(places)
        self._lock = Lock()
        self._made: dict[str, tuple[str, str, str]] = {}
        if file.exists():
            found = decisions_of(parse(file.read_bytes(), "csv", str(file)), str(file), file.parent)
            self._made = {
                place: (decision, label, given)
                for place, decision, label, given in found.table[list(DECISION_COLUMNS)].itertuples(
                    index=False
                )
            }

    def __len__(self) -> int:
        return len(self._made)

    def as_rows(self) -> list[list[str]]:
        """Place, decision, label and given label of each."""
        with self._lock:
            return [[place, *made] for place, made in self._made.items()]

    def make(self, place: str, decision: str | None, label: str, given: str) -> None:
        """Make a decision, or take it back with None, and write all of them.

        Raises:
            ValueError: There is no such sample, or no such decision.
            OutputError: The file cannot be written; the decision is not made.
        """
        if place not in self._places:
            raise ValueError("no such sample")
        if decision not in (None, *ACTIONS) or (decision == RELABEL and not label):
            raise ValueError("no such decision")
        with self._lock:
            made = {other: row for other, row in self._made.items() if other != place}
            if decision is not None:
                made[place] = (decision, label, given)
            rows = [(other, *row) for other, row in sorted(made.items())]
            write_table(pd.DataFrame(rows, columns=list(DECISION_COLUMNS), dtype="str"), self._file, "csv")
            self._made = made


@dataclass(frozen=True)
class Review:
    """What a server answers with.

    Attributes:
        html: The page.
        data: Samples, lists and classes, as the script wants them, without decisions.
        files: (n,) the image file of each sample; None where it has none.
        neighbours: Of the first samples, those that have scores.
        decisions: Made so far.
    """

    html: str
    data: dict[str, Any]
    files: Sequence[str | None]
    neighbours: Neighbours | None
    decisions: Decisions

    def near(self, rows: Sequence[int]) -> list[Any]:
        """Neighbours of some samples; null for those without scores."""
        known = 0 if self.neighbours is None else len(self.neighbours.labels)
        scored = [row for row in rows if row < known]
        found = iter([] if self.neighbours is None or not scored else self.neighbours.of(np.array(scored)))
        return [next(found) if row < known else None for row in rows]


class ReviewServer(ThreadingHTTPServer):
    """Answers a browser on this machine that knows the address.

    The address holds a secret, which other users of the machine, and pages of other sites in the same
    browser, do not know.

    Args:
        review: What to answer with.
        port: 0 for any that is free.

    Raises:
        OSError: The port is taken.
    """

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review = review
        self.secret = secrets.token_urlsafe(16)
        self.thumbnail = lru_cache(_REMEMBERED)(thumbnail)
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away in the middle of an answer; a mistake of ours is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_address[1]}/{self.secret}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal is for people."""

    def do_GET(self) -> None:
        """Answer with the page, its data, an image or neighbours."""
        path = self._asked()
        if path is None:
            return
        name, _, argument = path.partition("/")
        review = self.server.review
        if path == "":
            self._send(review.html.encode(), "text/html; charset=utf-8")
        elif path == "data":
            self._json({**review.data, "decisions": review.decisions.as_rows()})
        elif path == "near":
            self._json(review.near(self._rows(parse_qs(urlsplit(self.path).query).get("rows", [""])[0])))
        elif name == "thumbnail" and (file := self._file(argument)) is not None:
            side = SMALL_SIDE if urlsplit(self.path).query == "small" else SIDE
            self._image(self.server.thumbnail(file, side), "image/webp")
        elif name == "image" and (file := self._file(argument)) is not None:
            self._image(_large(file), "image/jpeg")
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Make a decision."""
        # The body is read, or else the connection closed, whatever the answer: the next request follows it.
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MOST_BYTES:
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        path = self._asked()
        if path is None:
            return
        if path != "decision":
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            asked = json.loads(body)
            self.server.review.decisions.make(
                *(asked["place"], asked["decision"]),
                *(str(asked.get(name, "")) for name in ("label", "given")),
            )
        except OutputError as error:
            self._failed(error, HTTPStatus.INSUFFICIENT_STORAGE)
        except (ValueError, TypeError, KeyError) as error:
            self._failed(error, HTTPStatus.BAD_REQUEST)
        else:
            self._json({})

    def _asked(self) -> str | None:
        """What is asked for below the secret; None, and an answer, where that or the host is wrong."""
        port = self.server.server_address[1]
        secret, _, path = urlsplit(self.path).path.removeprefix("/").partition("/")
        known = hmac.compare_digest(secret.encode(), self.server.secret.encode())
        if known and self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}"):
            return path
        self._refuse(HTTPStatus.FORBIDDEN)
        return None

    def _rows(self, text: str) -> list[int]:
        n = len(self.server.review.files)
        rows = [int(part) for part in text.split(",") if part.isdigit()]
        return [row for row in rows if row < n][:_MOST_ROWS]

    def _file(self, argument: str) -> str | None:
        rows = self._rows(argument)
        return self.server.review.files[rows[0]] if rows else None

    def _image(self, content: bytes | None, kind: str) -> None:
        if content is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._send(content, kind)

    def _json(self, content: Any) -> None:
        self._send(json.dumps(content).encode(), "application/json")

    def _failed(self, error: Exception, status: HTTPStatus) -> None:
        self._send(str(error).encode(), "text/plain; charset=utf-8", status)

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(status.phrase.encode(), "text/plain; charset=utf-8", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        # Images of people do not stay in the browser's cache, and no other site may embed them.
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(content)


def _large(file: str) -> bytes | None:
    """An image as large as a screen, upright, in a format that every browser knows."""
    try:
        image = decode_image(read_bytes(file), least_side=_LARGE_SIDE)
    except (UndecodableImage, OSError, ValueError):
        return None
    image.thumbnail((_LARGE_SIDE, _LARGE_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92)
    return content.getvalue()
