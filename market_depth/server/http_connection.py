"""One client's HTTP/1.1: requests in, answers out, over any trio stream. What the requests mean is no matter here.

    idle ──► head ──► body ──► answer ──► idle …        each with its own limit of time, the head and what is read
                                    └──► closed         ahead of it also with one of size

h11 parses. Beyond it we refuse what two parsers could read in two ways (request smuggling): a head with both
`Content-Length` and `Transfer-Encoding`, a line that ends without a carriage return, a folded line.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

import h11
import trio

MAX_HEAD_BYTES = 16 * 1024
MAX_AHEAD_BYTES = 64 * 1024
"""So much may a client send before the answer to what it sent first; then we stop reading."""

HEAD_RECEIVE_BYTES = 16 * 1024
BODY_RECEIVE_BYTES = 256 * 1024
SEND_BYTES = 64 * 1024
"""What goes to the stream at once: the time limit of writing is for so much."""

MAX_DETAIL_CHARACTERS = 200

_AMBIGUOUS_LINE = re.compile(rb"(?<!\r)\n|\n[ \t]")


class Timeouts(NamedTuple):
    """How long a client may take, in seconds."""

    head_s: float = 10.0
    """For a whole request head, however it drips in; a new connection has it from the start."""
    idle_s: float = 60.0
    """Between an answer and the next request."""
    body_s: float = 10.0
    """Without a byte of a body that is awaited."""
    write_s: float = 30.0
    """To take SEND_BYTES of an answer."""


USUAL_TIMEOUTS = Timeouts()


class RequestError(Exception):
    """A request that gets nothing but an error, with which the conversation ends."""

    def __init__(
        self, status: HTTPStatus, detail: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = status.phrase if detail is None else detail[:MAX_DETAIL_CHARACTERS]
        self.headers = headers


class HttpConnection:
    """Reads requests and writes answers, one after the other.

    Every method that reads or writes raises trio.BrokenResourceError when the client is gone.
    """

    def __init__(self, stream: trio.abc.Stream, timeouts: Timeouts) -> None:
        self._stream = stream
        self._timeouts = timeouts
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self.headers: list[tuple[bytes, bytes]] = []
        """Of the present request, the names in lower case."""
        # All that has come from the beginning of the present request's head on, when that head was whole.
        self._heard = b""

    async def next_request(self) -> h11.Request | None:
        """The next request's head; None when the client has left, or said nothing more for too long.

        Raises: RequestError when it is too large or too slow, or makes no sense.
        """
        if self._parser.our_state is h11.DONE:
            self._parser.start_next_cycle()
        heard = self._parser.trailing_data[0]
        if not heard and self._heard:
            with trio.move_on_after(self._timeouts.idle_s):
                heard = await self._receive(HEAD_RECEIVE_BYTES)
            if not heard:
                return None
            self._parser.receive_data(heard)
        with trio.move_on_after(self._timeouts.head_s):
            event = self._next_event() if heard else h11.NEED_DATA
            while event is h11.NEED_DATA:
                data = await self._receive(HEAD_RECEIVE_BYTES)
                if not data:
                    return None
                heard += data
                self._parser.receive_data(data)
                event = self._next_event()
            assert isinstance(event, h11.Request), (
                "the first event of a cycle, and we never tell the parser of an end"
            )
            self._heard = heard
            self._check_head(event)
            return event
        raise RequestError(HTTPStatus.REQUEST_TIMEOUT)

    @property
    def ahead(self) -> bytes:
        """What has come after the present request."""
        return self._parser.trailing_data[0]

    @property
    def is_body_read(self) -> bool:
        """Whether nothing more of the present request is to come."""
        return self._parser.their_state is not h11.SEND_BODY

    async def read_body(self) -> bytes:
        """The next piece of the request's body; nothing after the last.

        Raises: RequestError when it breaks off, comes too slowly or makes no sense.
        """
        if self.is_body_read:
            return b""
        if self._parser.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while (event := self._next_event()) is h11.NEED_DATA:
            with trio.move_on_after(self._timeouts.body_s) as limit:
                data = await self._receive(BODY_RECEIVE_BYTES)
            if limit.cancelled_caught:
                raise RequestError(HTTPStatus.REQUEST_TIMEOUT)
            if not data:
                raise RequestError(HTTPStatus.BAD_REQUEST, "the body breaks off")
            self._parser.receive_data(data)
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def wait_left(self) -> None:
        """Return when the client has left. What it sends in the meantime is kept for the next request."""
        ahead = len(self._parser.trailing_data[0])
        while ahead < MAX_AHEAD_BYTES:
            try:
                data = await self._receive(HEAD_RECEIVE_BYTES)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            ahead += len(data)
            self._parser.receive_data(data)
        await trio.sleep_forever()

    async def send(self, *events: h11.Event) -> None:
        """Write some of an answer. Raises: h11.LocalProtocolError when it is not what its beginning promised."""
        data = b"".join([self._parser.send(event) or b"" for event in events])
        if not data:
            await trio.lowlevel.checkpoint()
        for start in range(0, len(data), SEND_BYTES):
            with trio.move_on_after(self._timeouts.write_s) as limit:
                await self._stream.send_all(
                    data if len(data) <= SEND_BYTES else memoryview(data)[start : start + SEND_BYTES]
                )
            if limit.cancelled_caught:
                raise trio.BrokenResourceError("the client takes no bytes")

    @property
    def is_reusable(self) -> bool:
        """Whether a next request may follow."""
        return self._parser.our_state is h11.DONE and self._parser.their_state is h11.DONE

    async def _receive(self, size: int) -> bytes:
        return bytes(await self._stream.receive_some(size))

    def _next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        try:
            return self._parser.next_event()
        except h11.RemoteProtocolError as error:
            too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            status = too_large if error.error_status_hint == too_large else HTTPStatus.BAD_REQUEST
            raise RequestError(status, str(error)) from error

    def _check_head(self, request: h11.Request) -> None:
        size = len(self._heard) - len(self._parser.trailing_data[0])
        if size > MAX_HEAD_BYTES:
            raise RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if _AMBIGUOUS_LINE.search(self._heard, 0, size):
            raise RequestError(
                HTTPStatus.BAD_REQUEST, "a line of the head does not end with CR LF, or goes on in the next"
            )
        if not request.http_version.startswith(b"1."):
            raise RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        self.headers = list(request.headers)
        fields = dict(self.headers)
        if not fields.get(b"host", b"").isascii():
            raise RequestError(HTTPStatus.BAD_REQUEST, "the host is no name")
        is_chunked = b"transfer-encoding" in fields
        if is_chunked and b"content-length" in fields:
            raise RequestError(HTTPStatus.BAD_REQUEST, "both content-length and transfer-encoding")
        if not is_chunked and int(fields.get(b"content-length", b"0")) == 0:
            # So that an application that asks for no body has read it all.
            end = self._next_event()
            assert isinstance(end, h11.EndOfMessage), "no length, no body"
