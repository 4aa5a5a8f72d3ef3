"""WebSocket frames as bytes: what a server writes, whole and unmasked. Source: RFC 6455, section 5.2."""

import struct

_FIN_TEXT = 0x81
_FIN_CLOSE = 0x88


def text_frame(*parts: bytes) -> bytes:
    """One text message in one frame; the parts are joined."""
    length = sum(map(len, parts))
    if length < 126:
        header = bytes((_FIN_TEXT, length))
    elif length < 65536:
        header = struct.pack("!BBH", _FIN_TEXT, 126, length)
    else:
        header = struct.pack("!BBQ", _FIN_TEXT, 127, length)
    return b"".join((header, *parts))


def close_code_of(data: bytes) -> int | None:
    """The close code when `data` is a close frame; 1005 (none given) when it carries none; None for other frames."""
    if not data or data[0] != _FIN_CLOSE:
        return None
    return int.from_bytes(data[2:4], "big") if len(data) >= 4 else 1005
