"""WebSocket frames as bytes: what a server writes, whole and unmasked. Source: RFC 6455, section 5.2."""

from collections.abc import Iterable

_FIN_TEXT = 0x81
_FIN_CLOSE = 0x88
_FIN_PING = 0x89
_TEXT_16 = (_FIN_TEXT << 24) + (126 << 16)
"""The header of a text frame of 126 to 65,535 bytes, to which the length is added."""

PING = bytes((_FIN_PING, 0))
"""Whoever receives it has to answer with a pong."""


def text_frame(*parts: bytes) -> bytes:
    """One text message in one frame; the parts are joined."""
    return b"".join((_text_header(sum(map(len, parts))), *parts))


def text_frames(messages: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Text messages of two parts each, a frame a message, joined."""
    pieces: list[bytes] = []
    for first, second in messages:
        length = len(first) + len(second)
        # Most are of this form. A call for each would cost as much as all the rest.
        header = (_TEXT_16 + length).to_bytes(4) if 126 <= length < 65536 else _text_header(length)
        pieces += header, first, second
    return b"".join(pieces)


def _text_header(length: int) -> bytes:
    if 126 <= length < 65536:
        return (_TEXT_16 + length).to_bytes(4)
    if length < 126:
        return ((_FIN_TEXT << 8) + length).to_bytes(2)
    return ((_FIN_TEXT << 72) + (127 << 64) + length).to_bytes(10)


def close_frame(code: int, reason: str) -> bytes:
    """A close frame. `reason` has at most 123 bytes."""
    payload = code.to_bytes(2) + reason.encode()
    return bytes((_FIN_CLOSE, len(payload))) + payload


def close_code_of(data: bytes) -> int | None:
    """The close code when `data` is a close frame; 1005 (none given) when it carries none; None for other frames."""
    if not data or data[0] != _FIN_CLOSE:
        return None
    return int.from_bytes(data[2:4], "big") if len(data) >= 4 else 1005
