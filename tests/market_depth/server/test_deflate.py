import random
import zlib

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from market_depth.server.deflate import MIN_BYTES, NOTHING_YET, Inflater, deflated_frames, is_offered
from market_depth.server.frames import PING, close_frame, text_frame

MAX_BYTES = 1000
MASK = b"\x12\x34\x56\x78"


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def frame(first: int, payload: bytes, mask: bytes = MASK) -> bytes:
    """A client's frame whose first byte is this."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes((first,)) + length + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


TEXT, BINARY, CONTINUED, LAST, PINGED = 0xC1, 0xC2, 0x00, 0x80, 0x89
HELLO = frame(TEXT, deflated(b"Hello"))


def heard(data: bytes, pieces: int = 1, max_bytes: int = MAX_BYTES) -> list[object]:
    """What trio-websocket's protocol hears of a client's bytes: texts, bytes, pings' payloads in a list, the code of an end."""
    inflater, server = Inflater(max_bytes), Connection(ConnectionType.SERVER)
    said: list[object] = []
    text, octets = "", b""
    size = -(-len(data) // pieces) or 1
    for at in range(0, len(data), size):
        server.receive_data(inflater.receive(data[at : at + size]))
        for event in server.events():
            match event:
                case TextMessage():
                    text += event.data
                    if event.message_finished:
                        said.append(text)
                        text = ""
                case BytesMessage():
                    octets += event.data
                    if event.message_finished:
                        said.append(octets)
                        octets = b""
                case Ping(payload=payload):
                    said.append([bytes(payload)])
                case CloseConnection(code=code):
                    said.append(int(code))
                    return said
    return said


# What is agreed on


@pytest.mark.parametrize(
    ("offers", "is_agreed"),
    [
        ([b"permessage-deflate"], True),
        ([b"permessage-deflate; client_max_window_bits"], True),
        ([b'permessage-deflate;client_max_window_bits="10"'], True),
        ([b"permessage-deflate; server_no_context_takeover; client_no_context_takeover"], True),
        ([b"permessage-deflate; server_max_window_bits=15"], True),
        ([b"x-other, permessage-deflate; server_max_window_bits=10, permessage-deflate"], True),
        ([b"x-other", b"permessage-deflate"], True),
        ([], False),
        ([b""], False),
        ([b"x-webkit-deflate-frame"], False),
        ([b"permessage-deflate; server_max_window_bits=10"], False),
        ([b"permessage-deflate; server_max_window_bits"], False),
        ([b"permessage-deflate; client_max_window_bits=16"], False),
        ([b"permessage-deflate; client_max_window_bits=7"], False),
        ([b"permessage-deflate; client_max_window_bits="], False),
        ([b"permessage-deflate; server_no_context_takeover=1"], False),
        ([b"permessage-deflate; client_no_context_takeover; client_no_context_takeover"], False),
        ([b"permessage-deflate; unknown"], False),
        ([b"permessage-deflate; \xff"], False),
        ([b"permessage-deflate;"], False),
    ],
)
def test_an_offer_is_liked_if_one_compressed_form_will_do_for_all(
    offers: list[bytes], is_agreed: bool
) -> None:
    assert is_offered(offers) is is_agreed


# Ours


def test_long_texts_are_compressed_and_all_else_stays() -> None:
    long = [b"a" * MIN_BYTES, b'{"price": 1.5}' * 10_000]
    short, end = text_frame(b"short"), close_frame(1000, "bye")
    frames = deflated_frames(text_frame(long[0]) + short + PING + text_frame(long[1]) + end)
    assert len(frames) < 1000
    assert short + PING in frames
    client = Connection(ConnectionType.CLIENT, [agreed_extension()])
    client.receive_data(frames)
    texts = [event.data for event in client.events() if isinstance(event, TextMessage)]
    assert "".join(texts).encode() == long[0] + b"short" + long[1]


def agreed_extension() -> PerMessageDeflate:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
    return extension


def test_the_same_frames_have_the_same_compressed_form() -> None:
    frames = text_frame(b"abc" * 1000)
    assert deflated_frames(frames) == deflated_frames(frames)


# A client's


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HELLO, ["Hello"]),
        (HELLO + HELLO, ["Hello", "Hello"]),
        (frame(TEXT, deflated("äöü€😀".encode())), ["äöü€😀"]),
        (frame(BINARY, deflated(b"\0\xff")), [b"\0\xff"]),
        (frame(TEXT, b"\0"), [""]),
        (frame(TEXT, b""), [""]),
        (frame(TEXT, bytes.fromhex("f348cdc9c90700")), ["Hello"]),  # the RFC's example
        (frame(TEXT, bytes.fromhex("000500faff48656c6c6f00")), ["Hello"]),  # stored
        (frame(TEXT, bytes.fromhex("f348cdc9c9070000")), ["Hello"]),  # a last block, then another
        (frame(TEXT, bytes.fromhex("f248050000 00ffffcac9c90700")), ["Hello"]),  # two blocks
        (frame(0x81, b"plain"), ["plain"]),
        (frame(0x81, b""), [""]),
        (frame(0x01, b"pl") + frame(LAST, b"ain") + HELLO, ["plain", "Hello"]),
        (frame(PINGED, b"?") + HELLO + frame(PINGED, b""), [[b"?"], "Hello", [b""]]),
        (HELLO + frame(0x88, b"\x03\xe8"), ["Hello", 1000]),
        # in pieces
        (
            frame(0x41, deflated(b"Hello")[:3]) + frame(CONTINUED, b"") + frame(LAST, deflated(b"Hello")[3:]),
            ["Hello"],
        ),
        (
            frame(0x41, deflated(b"Hello")[:3])
            + frame(PINGED, b"?")
            + frame(LAST, deflated(b"Hello")[3:], b"\xff\0\xff\0")
            + frame(0x81, b"plain"),
            [[b"?"], "Hello", "plain"],
        ),
        # wrong
        (frame(0xC9, b"?"), [1002]),
        (frame(0xE1, deflated(b"Hello")), [1002]),
        (frame(0xC3, deflated(b"Hello")), [1002]),
        (frame(0xC0, deflated(b"Hello")), [1002]),
        (frame(0x01, b"pl") + frame(0xC0, b"ain"), [1002]),
        (frame(0x01, b"pl") + HELLO, [1002]),
        (frame(0x41, deflated(b"Hello")) + frame(0xC0, b""), [1002]),
        (frame(0x41, deflated(b"Hello")) + HELLO, [1002]),
        (frame(0x41, deflated(b"Hello")) + frame(0x81, b"plain"), [1002]),
        (frame(0x41, deflated(b"Hello")) + frame(0x90, b""), [1002]),
        (b"\xc1\x07" + deflated(b"Hello"), [1002]),
        (frame(0x41, deflated(b"Hello")) + b"\x80\x00", [1002]),
        (frame(TEXT, b"\xff\xff\xff"), [1007]),
        (frame(TEXT, deflated(b"\xff")), [1007]),
        (frame(TEXT, deflated("ä".encode()[:1])), [1007]),
    ],
)
@pytest.mark.parametrize("pieces", [1, 2, 1000])
def test_a_clients_messages_are_heard_plain(data: bytes, expected: list[object], pieces: int) -> None:
    assert heard(data, pieces) == expected


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_message_of_exactly_the_limit_is_heard_and_a_longer_one_as_a_byte_too_many(opcode: int) -> None:
    for size, expected in ((MAX_BYTES, MAX_BYTES), (MAX_BYTES + 1, MAX_BYTES + 1), (10**7, MAX_BYTES + 1)):
        [message] = heard(frame(0xC0 | opcode, deflated(b"x" * size)), max_bytes=MAX_BYTES)
        assert isinstance(message, str | bytes)
        assert len(message) == expected


@pytest.mark.parametrize(
    "flood",
    [
        frame(0x41, b"\0\0\0\xff\xff" * 20) + frame(CONTINUED, b"\0\0\0\xff\xff" * 20) * 20,  # empty blocks
        frame(0x41, b"\x03\0" * 50) + frame(CONTINUED, b"\x03\0" * 50) * 20,  # that call themselves the last
        b"\x41\xff" + (2**40).to_bytes(8) + bytes(4) + b"\0\0\0\xff\xff" * 400,
    ],
)
def test_what_makes_no_byte_does_not_go_on_for_ever(flood: bytes) -> None:
    message, *_ = heard(flood, pieces=7)
    assert isinstance(message, str)
    assert len(message) == MAX_BYTES + 1


def test_a_bomb_is_decompressed_no_further_than_the_limit_and_told_once() -> None:
    bomb = deflated(b"\0" * 100_000_000)
    inflater = Inflater(65_536)
    data = frame(0x42, b"") + b"".join(
        frame(CONTINUED, bomb[at : at + 1000]) for at in range(0, len(bomb), 1000)
    )
    made = inflater.receive(data)
    assert len(made) < 65_536 + len(data) + 100


def test_while_nothing_comes_of_bytes_a_pong_stands_for_them() -> None:
    inflater = Inflater(MAX_BYTES)
    made = [inflater.receive(HELLO[at : at + 1]) for at in range(len(HELLO))]
    assert set(made[:-1]) == {NOTHING_YET}
    assert made[-1] == b"\x81\x85\0\0\0\0Hello"


SEED = 20


def test_any_messages_in_any_pieces_are_heard_as_they_were_said() -> None:
    for seed in range(SEED, SEED + 300):
        chance = random.Random(seed)
        plain = FrameProtocol(client=True, extensions=[])
        packed = FrameProtocol(client=True, extensions=[agreed_extension()])
        data = b""
        expected: list[object] = []
        for _ in range(chance.randrange(1, 6)):
            writer = chance.choice([plain, packed])
            text = "".join(chance.choices("abcä€", k=chance.choice([0, 1, 50, 200])))
            cut = chance.randrange(len(text) + 1)
            if cut:
                data += writer.send_data(text[:cut], fin=False)
                if chance.random() < 0.5:
                    data += plain.ping(b"?")
                    expected.append([b"?"])
            data += writer.send_data(text[cut:], fin=True)
            expected.append(text)
        assert heard(data, chance.choice([1, 3, 50, len(data)])) == expected, f"seed {seed}"


def test_any_bytes_are_taken() -> None:
    for seed in range(SEED, SEED + 300):
        chance = random.Random(seed)
        data = b"".join(
            frame(chance.randrange(256), chance.randbytes(chance.randrange(40))) for _ in range(5)
        )
        damaged = bytearray(data)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        inflater = Inflater(100)
        for at in range(0, len(damaged), 7):
            assert inflater.receive(bytes(damaged[at : at + 7])), f"seed {seed}"
