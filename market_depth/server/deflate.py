"""Compressed messages, each by itself: what is agreed on with a client, our frames compressed, a client's made plain.

Neither side keeps anything from one message to the next (no context takeover). So one compressed form of a frame serves all
clients, and one that compresses costs no memory between its messages.

trio-websocket knows no extensions: it is given a client's compressed messages as plain ones, and all else as it came. What
is wrong with a message is given to it as something that is wrong in the same way, so that all clients are let go alike:

    a reserved bit that means nothing, a frame not masked     as it came             close 1002
    a message begun within a compressed one                   with a reserved bit    close 1002
    what cannot be decompressed                               no UTF-8               close 1007
    a message that is too big, or a bomb                      one byte too many      close 1009

Source: RFC 7692, section 7; the frames: RFC 6455, section 5.2.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EXTENSION = b"permessage-deflate"
AGREED = EXTENSION + b"; server_no_context_takeover; client_no_context_takeover"
"""The answer to an offer that `is_offered` likes."""

MIN_BYTES = 256
"""What is shorter hardly becomes shorter, and is sent plain."""

LEVEL = 1

_WINDOW_BITS = 15
_RAW = -_WINDOW_BITS
_WINDOWS = {b"%d" % bits for bits in range(8, _WINDOW_BITS + 1)}
_FLAGS = {b"server_no_context_takeover", b"client_no_context_takeover"}

_TAIL = b"\0\0\xff\xff"
"""What ends every compressed message, and is left out of it."""

TEXT_FRAME = 0x81
"""How the frame of a whole text message begins."""

_FIN, _RSV1, _RSV = 0x80, 0x40, 0x70
_OPCODE, _CONTROL = 0x0F, 0x08
_CONTINUATION, _TEXT, _BINARY = 0, 1, 2
_MASKED = 0x80
_LENGTH = 0x7F
_NO_MASK = bytes(4)
NOTHING_YET = b"\x8a\x80" + _NO_MASK
"""A pong that nobody has asked for, and everybody ignores: no bytes at all would be the end of the connection."""
_NO_UTF8 = b"\xff"


def is_offered(offers: Iterable[bytes]) -> bool:
    """Whether the values of a client's `Sec-WebSocket-Extensions` offer what AGREED says.

    A client may offer the extension several times, with different parameters. An offer that wants our window smaller is
    declined: what is compressed for the others would not do for it.
    """
    return any(_is_acceptable(offer) for value in offers for offer in value.split(b","))


def _is_acceptable(offer: bytes) -> bool:
    name, *parameters = [part.strip() for part in offer.split(b";")]
    values: dict[bytes, bytes | None] = {}
    for parameter in parameters:
        key, equals, value = (part.strip() for part in parameter.partition(b"="))
        if key in values:
            return False
        values[key] = value.strip(b'"') if equals else None
    our_window = values.pop(b"server_max_window_bits", b"15")
    their_window = values.pop(b"client_max_window_bits", None)
    return (
        name == EXTENSION
        and our_window == b"15"
        and (their_window is None or their_window in _WINDOWS)
        and all(key in _FLAGS and value is None for key, value in values.items())
    )


def deflated_frames(frames: bytes) -> bytes:
    """Whole frames of ours, the text messages among them compressed, unless they are short."""
    deflated: list[bytes] = []
    at = 0
    while at < len(frames):
        start = at + _head_size(frames[at : at + 2])
        end = start + _payload_size(frames[at:start])
        if frames[at] == TEXT_FRAME and end - start >= MIN_BYTES:
            compressor = zlib.compressobj(LEVEL, wbits=_RAW)
            payload = compressor.compress(frames[start:end]) + compressor.flush(zlib.Z_SYNC_FLUSH)
            payload = payload.removesuffix(_TAIL)
            deflated += bytes((TEXT_FRAME | _RSV1,)), _length(len(payload)), payload
        else:
            deflated.append(frames[at:end])
        at = end
    return b"".join(deflated)


class Inflater:
    """The bytes of one client with its messages made plain, as they come.

    header ──► payload ──► header …    of frames that are handed on as they come, and of frames of a compressed message
                  └──► broken          a message was wrong: what follows is handed on as it comes, to be ignored
    """

    __slots__ = ("_frame", "_head", "_in_plain_message", "_is_broken", "_left", "_max_bytes", "_message")

    def __init__(self, max_bytes: int) -> None:
        """A message may have `max_bytes` when it is plain, and as many while it is compressed."""
        self._max_bytes = max_bytes
        self._head = b""
        """Of the frame that is being received, as much as has come."""
        self._left = 0
        """Bytes of its payload that are still to come."""
        self._frame: _Frame | None = None
        """It, if it is part of the compressed message."""
        self._message: _Message | None = None
        self._in_plain_message = False
        self._is_broken = False

    def receive(self, data: bytes) -> bytes:
        """What comes of the next bytes; NOTHING_YET, while a compressed message or a head is not whole."""
        plain: list[bytes] = []
        at = 0
        while at < len(data):
            if self._is_broken:
                plain.append(data[at:])
                break
            if not self._left:
                missing = _head_size(self._head) - len(self._head)
                self._head += data[at : at + missing]
                at += missing
                if len(self._head) == _head_size(self._head):
                    plain.append(self._begin_frame())
            else:
                payload = data[at : at + self._left]
                at += len(payload)
                self._left -= len(payload)
                plain.append(payload if self._frame is None else self._inflate(self._frame, payload))
        return b"".join(plain) or NOTHING_YET

    def _begin_frame(self) -> bytes:
        head, self._head = self._head, b""
        kind, opcode = head[0], head[0] & _OPCODE
        self._left = _payload_size(head)
        self._frame = None
        if opcode & _CONTROL:
            return head
        if self._message is not None:
            if kind & _RSV or opcode != _CONTINUATION or not head[1] & _MASKED:
                self._is_broken = True
                return bytes((kind | _RSV1,)) + head[1:]
        elif (
            kind & _RSV == _RSV1
            and opcode in (_TEXT, _BINARY)
            and head[1] & _MASKED
            and not self._in_plain_message
        ):
            self._message = _Message(opcode, self._max_bytes)
        else:
            self._in_plain_message = not kind & _FIN
            return head
        self._frame = _Frame(head[-4:], is_last=bool(kind & _FIN))
        return b"" if self._left else self._inflate(self._frame, b"")

    def _inflate(self, frame: _Frame, payload: bytes) -> bytes:
        message = self._message
        assert message is not None, "the frame is part of it"
        try:
            message.add(frame.unmasked(payload))
            if not self._left and frame.is_last:
                message.add(_TAIL)
        except zlib.error:
            self._is_broken = True
            return _plain_frame(_TEXT, _NO_UTF8)
        if message.is_too_big:
            self._is_broken = True
            return _plain_frame(message.opcode, b" " * (self._max_bytes + 1))
        if self._left or not frame.is_last:
            return b""
        self._message = None
        return _plain_frame(message.opcode, bytes(message.plain))


class _Frame:
    """A frame of a compressed message, as far as it has come."""

    __slots__ = ("_at", "_mask", "is_last")

    def __init__(self, mask: bytes, *, is_last: bool) -> None:
        self._mask = mask
        self._at = 0
        self.is_last = is_last

    def unmasked(self, payload: bytes) -> bytes:
        """The next bytes of its payload without their mask."""
        size = len(payload)
        mask = (self._mask * (size // 4 + 2))[self._at : self._at + size]
        self._at = (self._at + size) % 4
        return (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)


class _Message:
    """A message as far as it was decompressed: never more than a byte over what it may have."""

    __slots__ = ("_inflater", "_max_bytes", "_received", "is_too_big", "opcode", "plain")

    def __init__(self, opcode: int, max_bytes: int) -> None:
        self.opcode = opcode
        self.plain = bytearray()
        self.is_too_big = False
        self._max_bytes = max_bytes
        self._received = 0
        self._inflater = zlib.decompressobj(_RAW)

    def add(self, deflated: bytes) -> None:
        """Decompress some more. Raises: zlib.error."""
        self._received += len(deflated)
        # Blocks that hold nothing make no byte, and could go on for ever.
        self.is_too_big = self.is_too_big or self._received > self._max_bytes + len(_TAIL)
        while deflated and not self.is_too_big:
            self.plain += self._inflater.decompress(deflated, self._max_bytes + 1 - len(self.plain))
            self.is_too_big = len(self.plain) > self._max_bytes
            deflated = b""
            if self._inflater.eof:  # what follows a block that calls itself the last begins anew
                deflated = self._inflater.unused_data
                self._inflater = zlib.decompressobj(_RAW)


def _head_size(head: bytes) -> int:
    """How long a frame's head is, as far as its first bytes tell."""
    if len(head) < 2:
        return 2
    extended = {126: 2, 127: 8}.get(head[1] & _LENGTH, 0)
    return 2 + extended + (4 if head[1] & _MASKED else 0)


def _payload_size(head: bytes) -> int:
    """How long the payload after a whole head is."""
    match head[1] & _LENGTH:
        case 126:
            return int.from_bytes(head[2:4])
        case 127:
            return int.from_bytes(head[2:10])
        case size:
            return size


def _length(size: int, masked: int = 0) -> bytes:
    """The part of a frame's head that tells how long its payload is."""
    if size < 126:
        return bytes((masked | size,))
    return (
        bytes((masked | 126,)) + size.to_bytes(2)
        if size < 65536
        else bytes((masked | 127,)) + size.to_bytes(8)
    )


def _plain_frame(opcode: int, payload: bytes) -> bytes:
    """A message as a client sends it, under a mask that changes nothing."""
    return bytes((_FIN | opcode,)) + _length(len(payload), _MASKED) + _NO_MASK + payload
