from __future__ import annotations

import logging
import random
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography.hazmat.primitives import serialization
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import wrap_client_stream
from trustme import KeyType

from market_depth.server.frames import text_frame
from market_depth.server.http_connection import USUAL_TIMEOUTS
from market_depth.server.tls import TlsFileError, TlsSocket, make_tls_context
from protocol.codecs import decode_answer, encode
from protocol.messages import HeartBeat, MarketData, Subscribe, Subscribed
from tests.market_depth.server.certificates import HOST, authority, make_tls, write_certificate
from tests.market_depth.server.local_server import complaints, local_server
from tests.market_depth.server.socket_pairs import direct_pair, frame_texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.market_depth.server.certificates import Tls

LONG_LIST = 600
"""A certificate with so many names is larger than the socket of a pair takes at once."""

BIG = text_frame(b"x" * 300_000)


async def read_to_the_end(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Tls:
    return make_tls(tmp_path, version=request.param)


async def test_frames_go_both_ways(tls: Tls) -> None:
    async with direct_pair(tls) as pair:
        pair.stream.post(text_frame(b"first"))
        assert pair.stream.offer(text_frame(b"second"), ("a",))
        assert frame_texts(await pair.client.receive_some()) == ["first"]
        assert frame_texts(await pair.client.receive_some()) == ["second"]
        await pair.client.send_all(b"x" * 5000)
        assert await pair.stream.receive_some(2000) == b"x" * 2000
        assert await pair.stream.receive_some() == b"x" * 3000


async def test_a_full_socket_gets_the_answers_in_order_then_the_newest_frame(tls: Tls) -> None:
    async with direct_pair(tls) as pair:
        newest = {"a": text_frame(b"a2"), "b": text_frame(b"b1")}
        pair.stream.newest = lambda _, stream_id: newest[stream_id]
        pair.stream.post(BIG)
        assert pair.stream.is_full
        assert not pair.stream.offer(text_frame(b"a1") + newest["b"], ("a", "b"))
        pair.stream.post(text_frame(b"answer"))
        pair.stream.offer(newest["a"], ("a",))
        received = b""
        while not received.endswith(newest["b"]):
            received += await pair.client.receive_some()
        assert frame_texts(received)[1:] == ["answer", "a2", "b1"]
        await pair.stream.wait_drained()
        assert pair.stream.offer(text_frame(b"a3"), ("a",))
        assert frame_texts(await pair.client.receive_some()) == ["a3"]


@pytest.mark.parametrize("seed", range(5))
async def test_frames_are_whole_and_in_order_however_they_are_read(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    # Together less than may wait for a client.
    posted = [f"{number}:" + "·" * chance.choice((0, 10, 3_000, 10_000)) for number in range(40)]
    posted.insert(chance.randrange(10), "·" * 90_000)
    async with direct_pair(make_tls(tmp_path)) as pair:

        async def write() -> None:
            for text in posted:
                if chance.random() < 0.5:
                    pair.stream.post(text_frame(text.encode()))
                else:
                    await pair.stream.send_all(text_frame(text.encode()))
            await pair.stream.send_eof()

        received = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while data := await pair.client.receive_some(chance.choice((7, 126, 5_000, 60_000))):
                received += data
    assert frame_texts(received) == posted, seed


async def test_a_handshake_larger_than_the_socket_takes_is_finished(tmp_path: Path) -> None:
    names = [f"a-rather-long-name-of-number-{number}.example.org" for number in range(LONG_LIST)]
    async with direct_pair(make_tls(tmp_path, *names)) as pair:
        pair.stream.post(text_frame(b"first"))
        assert frame_texts(await pair.client.receive_some()) == ["first"]


class DrippingSocket(socket.socket):
    """It has a byte at a time."""

    received = 0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self.received += 1
        return super().recv(min(size, 1), flags)


def test_who_sends_what_says_nothing_keeps_nobody_waiting(tls: Tls) -> None:
    ours, theirs = socket.socketpair()
    with DrippingSocket(fileno=ours.detach()) as dripping, theirs:
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            tls.client.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=tls.host).do_handshake()
        theirs.sendall(hello.read())
        server = TlsSocket(dripping, tls.server)
        for turn in range(1, 20):
            with pytest.raises(BlockingIOError):
                server.recv(100)
            assert dripping.received == turn


async def test_an_end_is_told_from_a_connection_that_was_cut_off(tls: Tls) -> None:
    async with direct_pair(tls) as ended, direct_pair(tls) as cut:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ended.client.aclose)
            assert await ended.stream.receive_some() == b""
            await ended.stream.aclose()
        cut.client_socket.close()
        with pytest.raises(trio.BrokenResourceError):
            await cut.stream.receive_some()


async def test_the_client_sees_our_end_and_may_finish_what_it_says(tls: Tls) -> None:
    async with direct_pair(tls) as pair:
        await pair.stream.send_all(b"last words")
        await pair.stream.send_eof()
        assert await pair.client.receive_some() == b"last words"
        await pair.client.send_all(b"one moment")
        assert await pair.client.receive_some() == b""
        assert await pair.stream.receive_some() == b"one moment"


async def test_who_stops_in_the_middle_of_a_frame_sees_no_good_end(tls: Tls) -> None:
    async with direct_pair(tls) as pair:
        pair.stream.post(BIG)
        await wait_all_tasks_blocked()
        await pair.stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await read_to_the_end(pair.client)


async def test_nothing_can_be_said_before_the_handshake(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with local_server(tls=make_tls(tmp_path).server) as server, await server.connect() as stream:
        await stream.send_all(b"\x16\x03\x01")  # the beginning of a client's first record
        await wait_all_tasks_blocked()
        mock_clock.jump(USUAL_TIMEOUTS.head_s + 1)
        assert await stream.receive_some() == b""
    assert complaints(caplog.records) == []


async def test_a_websocket_over_tls_is_served_like_any_other(tls: Tls) -> None:
    async with (
        local_server(tls=tls.server) as server,
        await server.connect() as plain,
        trio.open_nursery() as nursery,
    ):
        stream = trio.SSLStream(plain, tls.client, server_hostname=tls.host)
        client = await wrap_client_stream(nursery, stream, tls.host, "/")
        assert isinstance(decode_answer(await client.get_message()), HeartBeat)
        request = Subscribe(stream_id="a", symbol="BTCUSD", data_type="MBP")
        await client.send_message(encode(request).decode())
        assert isinstance(decode_answer(await client.get_message()), Subscribed)
        for _ in range(3):
            assert isinstance(decode_answer(await client.get_message()), MarketData)
        await client.aclose()
        await server.wait_for_clients(0)


async def test_a_page_over_tls_ends_as_it_should(tls: Tls) -> None:
    async with local_server(tls=tls.server) as server, await server.connect() as plain:
        stream = trio.SSLStream(plain, tls.client, server_hostname=tls.host)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await read_to_the_end(stream)).endswith(b'{"hello": "world"}')


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\x00\x05hello", b"\x15\x03"),
        (b"\0" * 100, b""),
        (b"", b""),
    ],
    ids=["plain HTTP", "not TLS after all", "zeros", "nothing"],
)
async def test_who_does_not_speak_tls_is_refused_without_a_fuss(
    said: bytes, answer: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with local_server(tls=make_tls(tmp_path).server) as server, await server.connect() as stream:
        await stream.send_all(said)
        await stream.send_eof()
        assert (await stream.receive_some()).startswith(answer)
    assert complaints(caplog.records) == []


def test_tls_begins_at_version_1_2(tmp_path: Path) -> None:
    assert make_tls_context(*write_certificate(tmp_path)).minimum_version == ssl.TLSVersion.TLSv1_2


def keep(content: bytes) -> bytes:
    return content


def to_rubbish(_: bytes) -> bytes:
    return b"rubbish"


def another_key(_: bytes) -> bytes:
    issued = authority().issue_cert(HOST, key_type=KeyType.ECDSA)
    return bytes(issued.private_key_pem.bytes())


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


@pytest.mark.parametrize(
    ("spoil_certificate", "spoil_key", "complaint"),
    [
        (None, keep, "cannot read certificate.pem: No such file or directory"),
        (keep, None, "cannot read key.pem: No such file or directory"),
        (to_rubbish, keep, "no certificate in certificate.pem, or no key in key.pem: PEM is expected"),
        (keep, to_rubbish, "no certificate in certificate.pem, or no key in key.pem: PEM is expected"),
        (keep, another_key, "key.pem is not the key of the certificate in certificate.pem"),
        (keep, encrypted, "key.pem is encrypted: a server starts without anybody to ask for the password"),
    ],
    ids=["no certificate", "no key", "certificate is rubbish", "key is rubbish", "another key", "encrypted"],
)
def test_files_that_cannot_be_used_are_named(
    spoil_certificate: Callable[[bytes], bytes] | None,
    spoil_key: Callable[[bytes], bytes] | None,
    complaint: str,
    tmp_path: Path,
) -> None:
    files = write_certificate(tmp_path)
    for file, spoil in zip(files, (spoil_certificate, spoil_key), strict=True):
        if spoil is None:
            file.unlink()
        else:
            file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(TlsFileError) as caught:
        make_tls_context(*files)
    assert str(caught.value).replace(f"{tmp_path}/", "") == complaint
