import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from market_depth.feeds.gateway_client import RefusedError
from market_depth.feeds.gateway_connection import GatewayConnection, GatewayLostError
from market_depth.feeds.gateway_url import parse_gateway_url
from tests.market_depth.feeds.dbn_files import adds, metadata
from tests.market_depth.feeds.test_dbn_stream import mapping

URL = parse_gateway_url("tcp://gateway:13000")
HANDSHAKE = b"lsg_version=0.5.2\ncram=abc\nsuccess=1|session_id=1\n"
START = metadata(schema=None, stype_in=None, mappings={}).encode() + mapping(7, "ACME", "ACME")


async def connect(said: bytes, *, close: bool = True) -> GatewayConnection:
    """A connection to somebody who says `said` whatever is said to him, and then closes or is silent."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(said)
    if close:
        await theirs.send_eof()

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("gateway", 13000)
        return ours

    return await GatewayConnection.open(URL, "key", open_stream)


@pytest.mark.parametrize("length", range(len(HANDSHAKE)))
async def test_a_gateway_may_close_at_any_moment_of_the_handshake(length: int) -> None:
    with pytest.raises(GatewayLostError, match="closed the connection during the handshake"):
        await connect(HANDSHAKE[:length])


async def test_a_gateway_may_close_at_any_moment_of_the_stream() -> None:
    stream = START + adds(2).tobytes()
    for length in range(len(stream)):
        connection = await connect(HANDSHAKE + stream[:length])
        if length:
            received = await connection.receive()
            assert len(received.events) == max(length - len(START), 0) // 56
        with pytest.raises(GatewayLostError, match="the gateway closed the connection"):
            await connection.receive()
        await connection.aclose()


async def test_the_stream_may_begin_together_with_the_handshakes_end() -> None:
    connection = await connect(HANDSHAKE + START)
    assert (await connection.receive()).mappings == [(7, "ACME")]
    assert connection.metadata is not None
    await connection.aclose()


@pytest.mark.parametrize("length", [0, 20, 30, len(HANDSHAKE) - 1])
async def test_a_gateway_that_does_not_answer_is_lost(length: int, autojump_clock: MockClock) -> None:
    with pytest.raises(GatewayLostError, match="does not answer within 10 s"):
        await connect(HANDSHAKE[:length], close=False)


async def test_a_silent_gateway_is_lost(autojump_clock: MockClock) -> None:
    connection = await connect(HANDSHAKE, close=False)
    with pytest.raises(GatewayLostError, match="silent for 20 s"):
        await connection.receive()
    await connection.aclose()


async def test_a_refusal_is_told_apart_from_a_loss() -> None:
    with pytest.raises(RefusedError, match="Authentication failed"):
        await connect(HANDSHAKE[:27] + b"success=0|error=Authentication failed\n")


async def test_nobody_there_is_a_loss() -> None:
    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(GatewayLostError, match=r"cannot connect: .*Connection refused"):
        await GatewayConnection.open(URL, "key", open_stream)
