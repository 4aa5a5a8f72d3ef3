import pytest
from wsproto.frame_protocol import FrameProtocol, Opcode

from market_depth.server.frames import PING, FrameTemplate, close_code_of, close_frame, text_frame


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_text_frame_reads_back_whole_at_every_length_form(length: int) -> None:
    text = ("é" + "x" * length).encode()[:length] if length > 1 else b"x" * length
    reader = FrameProtocol(client=True, extensions=[])
    reader.receive_bytes(text_frame(text))
    frames = list(reader.received_frames())
    assert b"".join(str(frame.payload).encode() for frame in frames) == text
    assert {frame.opcode for frame in frames} == {Opcode.TEXT}
    assert frames[-1].message_finished


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_text_frame_uses_the_shortest_length_form(length: int, header: bytes) -> None:
    assert text_frame(b"x" * length) == header + b"x" * length


def test_text_frame_joins_its_parts() -> None:
    assert text_frame(b"ab", b"", b"c") == text_frame(b"abc")


def test_a_template_makes_the_frames_of_all_messages_that_begin_with_equally_many_bytes() -> None:
    bodies = [b"b" * size for size in (0, 25, 26, 65_435, 65_436)]
    template = FrameTemplate([100] * len(bodies), bodies)
    for letters in ("aaaaa", "cdefg"):
        heads = [letter.encode() * 100 for letter in letters]
        assert template.filled(heads) == b"".join(map(text_frame, heads, bodies))


def test_a_template_refuses_heads_for_more_or_fewer_frames() -> None:
    template = FrameTemplate([1, 1], [b"a", b"b"])
    for heads in ([b"1"], [b"1", b"2", b"3"]):
        with pytest.raises(ValueError, match="extended slice of size 2"):
            template.filled(heads)


@pytest.mark.parametrize("reason", ["", "no pong", "·" * 61])
def test_close_frames_and_pings_are_as_wsproto_writes_them(reason: str) -> None:
    writer = FrameProtocol(client=False, extensions=[])
    assert writer.close(4012, reason) == close_frame(4012, reason)
    assert writer.ping() == PING


@pytest.mark.parametrize("code", [1000, 1001, 1009, 4999])
def test_close_code_of_reads_what_wsproto_writes(code: int) -> None:
    frame = FrameProtocol(client=False, extensions=[]).close(code, "reason")
    assert close_code_of(bytes(frame)) == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x88\x00", 1005),
        (b"", None),
        (b"\x81\x02hi", None),
        (b"\x8a\x00", None),
        (b"HTTP/1.1 101 Switching Protocols\r\n", None),
    ],
    ids=["close without a code", "nothing", "text", "pong", "handshake"],
)
def test_close_code_of_other_data(data: bytes, code: int | None) -> None:
    assert close_code_of(data) == code
