"""The end of a conversation that we end: the client may finish what it is saying.

Closing a socket on which something unread has arrived resets the connection, and our last words could be lost on their
way. Source: RFC 9112, section 9.6.
"""

from __future__ import annotations

import trio

LINGER_S = 1.0
LINGER_BYTES = 4 * 1024 * 1024
"""How long, and how much, a client may go on."""


async def linger(stream: trio.abc.HalfCloseableStream) -> None:
    """Say that we have said everything, and throw away what still comes, until the client ends too.

    Raises: trio.BrokenResourceError when the client resets the connection.
    """
    received = 0
    with trio.move_on_after(LINGER_S):
        await stream.send_eof()
        while received < LINGER_BYTES:
            data = await stream.receive_some()
            if not data:
                break
            received += len(data)
