"""Serve the page to a browser on this machine, and write every decision to disk at once."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from divacli.errors import DivaError, OutputError
from divacli.images.scaling import AS_STORED, PixelRange
from divacli.report.page.connections import STRANGER_SECONDS, BoundedServer
from divacli.report.page.neighbours import Neighbours
from divacli.report.page.thumbnails import SIDE, SMALL_SIDE, large, thumbnail
from divacli.review.ledger import Change, Ledger

HOST = "127.0.0.1"
"""Nobody but this machine is answered."""

_MOST_ROWS = 512
_MOST_BYTES = 1 << 26
_REMEMBERED = 4096
_PART = 1 << 20  # of an answer; each may take as long as a connection may be silent


@dataclass(frozen=True)
class Review:
    """What a server answers with.

    Attributes:
        html: The page.
        data: Samples, lists and classes, as the script wants them, without decisions.
        files: (n,) the image file of each sample; None where it has none.
        neighbours: Of the first samples, those that have scores.
        ledger: Decisions made so far, and the file they are in.
        pixels: Which values of images of more than 8 bits are black and white.
    """

    html: str
    data: dict[str, Any]
    files: Sequence[str | None]
    neighbours: Neighbours | None
    ledger: Ledger
    pixels: PixelRange = AS_STORED

    def near(self, rows: Sequence[int]) -> list[Any]:
        """Neighbours of some samples; null for those without scores."""
        known = 0 if self.neighbours is None else len(self.neighbours.labels)
        scored = [row for row in rows if row < known]
        found = iter([] if self.neighbours is None or not scored else self.neighbours.of(np.array(scored)))
        return [next(found) if row < known else None for row in rows]


class ReviewServer(BoundedServer):
    """Answers a browser on this machine that knows the address.

    The address holds a secret, which other users of the machine, and pages of other sites in the same
    browser, do not know.

    Args:
        review: What to answer with.
        port: 0 for any that is free.

    Raises:
        OutputError: The port is taken, or not for this user.
    """

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review = review
        self.secret = secrets.token_urlsafe(16)
        self.thumbnail = lru_cache(_REMEMBERED)(partial(thumbnail, pixels=review.pixels))
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise OutputError(
                f"port {port} of {HOST} cannot be used: {error.strerror}",
                expected="a free port",
                hint="leave --port out, or choose another one",
            ) from error

    def knows(self, target: str) -> bool:
        """Whether what is asked for lies below the secret."""
        shown = target.partition("?")[0].removeprefix("/").partition("/")[0]
        return hmac.compare_digest(shown.encode(), self.secret.encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away in the middle of an answer; a mistake of ours is shown."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @contextmanager
    def shown(self, folder: Path) -> Iterator[None]:
        """Open the page in the user's browser.

        The command line of a browser is there for all users of the machine to see. So the browser is given a
        file that only its owner can read, and that holds the address.

        Args:
            folder: Where that file lies as long as this lasts: where a browser in a sandbox can read it.
        """
        file = folder.resolve() / f"review-{secrets.token_hex(4)}.html"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as page:
            page.write(f'<meta http-equiv="refresh" content="0; url={self.address}">\n')
        try:
            webbrowser.open(file.as_uri())
            yield
        finally:
            file.unlink(missing_ok=True)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self.server_address[1]}/{self.secret}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = STRANGER_SECONDS
    raw_requestline: bytes

    def parse_request(self) -> bool:
        """Read a request to its end if its first line shows the secret; refuse it unread otherwise."""
        words = str(self.raw_requestline, "iso-8859-1").split()
        if len(words) < 2 or not self.server.knows(words[1]):
            self.requestline = self.request_version = self.command = ""
            self.close_connection = True
            self._refuse(HTTPStatus.FORBIDDEN)
            return False
        self.server.trust(self.connection)
        return super().parse_request()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: the terminal is for people."""

    def do_GET(self) -> None:
        """Answer with the page, its data, an image or neighbours."""
        asked = self._asked()
        if asked is None:
            return
        path, query = asked
        name, _, argument = path.partition("/")
        review = self.server.review
        if path == "":
            self._send(review.html.encode(), "text/html; charset=utf-8")
        elif path == "data":
            self._json({**review.data, "decisions": review.ledger.as_rows()})
        elif path == "near":
            self._json(review.near(self._rows(parse_qs(query).get("rows", [""])[0])))
        elif name == "thumbnail" and (file := self._file(argument)) is not None:
            self._image(self.server.thumbnail(file, SMALL_SIDE if query == "small" else SIDE), "image/webp")
        elif name == "image" and (file := self._file(argument)) is not None:
            self._image(large(file, review.pixels), "image/jpeg")
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Make decisions."""
        # The body is read, or else the connection closed, whatever the answer: the next request follows it.
        length = _number(self.headers.get("Content-Length", ""))
        if length is None or length > _MOST_BYTES:
            self.close_connection = True
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        asked = self._asked()
        if asked is None:
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if asked[0] != "decisions":
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            self.server.review.ledger.make([_change(one) for one in json.loads(body)])
        except DivaError as error:
            self._failed(error, HTTPStatus.INSUFFICIENT_STORAGE)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._failed(error, HTTPStatus.BAD_REQUEST)
        else:
            self._json({})

    def _asked(self) -> tuple[str, str] | None:
        """Path below the secret, and query; None, and an answer, where another host is asked for."""
        port = self.server.server_address[1]
        path, _, query = self.path.partition("?")
        secret, slash, below = path.removeprefix("/").partition("/")
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._refuse(HTTPStatus.FORBIDDEN)
            return None
        if not slash:  # the page asks for what lies beside it
            self.send_response(HTTPStatus.MOVED_PERMANENTLY)
            self.send_header("Location", f"/{secret}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return below, query

    def _rows(self, text: str) -> list[int]:
        n = len(self.server.review.files)
        rows = (_number(part) for part in text.split(",")[:_MOST_ROWS])
        return [row for row in rows if row is not None and row < n]

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
        self._send(str(error).encode(errors="backslashreplace"), "text/plain; charset=utf-8", status)

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
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        for start in range(0, len(content), _PART):
            self.wfile.write(content[start : start + _PART])


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _change(one: Any) -> Change:
    """A decision as the page's script sends it.

    Raises:
        ValueError: It is of another kind.
    """
    change = Change(one["place"], one["decision"], one.get("label", ""))
    if not isinstance(change.place, str) or not isinstance(change.label, str):
        raise ValueError("place and label are to be text")
    return change
