"""What one connection is answered, frame by frame, and that nothing a client sends can break it."""

import json
from itertools import combinations
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.codecs import decode_answer, encode
from protocol.errors import WIRE_ERRORS, CloseCode, InternalError
from protocol.messages import DataType, Error, HeartBeat, Hello, Subscribed, Unsubscribed
from protocol.session import Answer, Limits, Session, Subscription, error_frame
from tests.protocol.frames import NOW_NS
from tests.protocol.test_codecs import BAD_REQUESTS, short_id

SERVED: dict[str, tuple[DataType, ...]] = {
    "ADAUSD": ("MBO", "MBP"),
    "BTCUSD": ("MBO", "MBP"),
    "BYBIT:XRPUSDT": ("MBP",),
}

NO_RATE = Limits(messages_per_s=1e9, message_burst=10**9)
"""For tests of everything but the rate."""

PING = '{"type":"Ping","timestamp":"2026-11-20T16:41:03Z"}'


def a_session(limits: Limits = NO_RATE) -> Session:
    return Session(SERVED, limits, now=0.0)


def subscribe(stream_id: str = "a", symbol: str = "BTCUSD", data_type: str = "MBP", **more: Any) -> str:
    return json.dumps(
        {"type": "Subscribe", "stream_id": stream_id, "symbol": symbol, "data_type": data_type, **more}
    )


def unsubscribe(stream_id: str = "a") -> str:
    return json.dumps({"type": "Unsubscribe", "stream_id": stream_id})


def ask(session: Session, *frames: str | bytes, now: float = 0.0) -> Answer:
    """The answer to the last of the frames."""
    *_, answer = (session.receive(frame, now, NOW_NS) for frame in frames)
    return answer


def refusal(code: int, message: str, stream_id: str | None) -> Answer:
    return Answer(Error(code=code, message=message, stream_id=stream_id))


# Streams


def test_a_session_begins_with_the_servers_clock_and_without_streams() -> None:
    session = a_session()
    assert session.heartbeat(NOW_NS) == HeartBeat(timestamp="2026-11-20T16:47:43.000250Z")
    assert session.streams == {}


def test_subscribe_starts_a_stream() -> None:
    session = a_session()
    stream = Subscription("a", "BTCUSD", "MBP", max_levels=5)
    assert ask(session, subscribe("a", "BTCUSD", "MBP", max_levels=5)) == Answer(
        Subscribed(stream_id="a", symbol="BTCUSD", data_type="MBP"), started=stream
    )
    assert session.streams == {"a": stream}


def test_subscribe_without_a_depth_asks_for_20_levels() -> None:
    answer = ask(a_session(), subscribe())
    assert answer.started == Subscription("a", "BTCUSD", "MBP", max_levels=20)


def test_unsubscribe_stops_the_stream() -> None:
    session = a_session()
    started = ask(session, subscribe()).started
    assert ask(session, unsubscribe()) == Answer(Unsubscribed(stream_id="a"), stopped=started)
    assert session.streams == {}


def test_a_stream_id_is_free_again_after_unsubscribe() -> None:
    answer = ask(a_session(), subscribe("a", "BTCUSD"), unsubscribe("a"), subscribe("a", "ADAUSD"))
    assert answer.started == Subscription("a", "ADAUSD", "MBP", max_levels=20)


def test_one_book_may_have_many_streams() -> None:
    session = a_session()
    ask(session, subscribe("a"), subscribe("b"), subscribe("c", data_type="MBO"))
    assert list(session.streams) == ["a", "b", "c"]


def test_ping_is_answered_by_a_heartbeat_with_the_servers_clock() -> None:
    assert ask(a_session(), PING) == Answer(HeartBeat(timestamp="2026-11-20T16:47:43.000250Z"))


# Refusals


@pytest.mark.parametrize(("data", "message", "stream_id"), BAD_REQUESTS, ids=short_id)
def test_a_bad_request_is_answered_by_error_400(
    data: str | bytes, message: str, stream_id: str | None
) -> None:
    session = a_session()
    answer = ask(session, subscribe("other"), data)
    assert isinstance(answer.message, Error)
    assert answer.message.message.startswith(message)
    assert answer == refusal(400, answer.message.message, stream_id)
    assert list(session.streams) == ["other"]


DOGE = "symbol: 'DOGE' is not served (served: ADAUSD, BTCUSD, BYBIT:XRPUSDT)"
IN_USE = "stream_id: 'a' is already in use on this connection"
NO_STREAM = "stream_id: no stream 'b' on this connection"
NO_MBO = "data_type: MBO is not served for 'BYBIT:XRPUSDT'"


@pytest.mark.parametrize(
    ("frames", "code", "message", "stream_id"),
    [
        ([subscribe("b", "DOGE")], 404, DOGE, "b"),
        ([unsubscribe("b")], 404, NO_STREAM, "b"),
        ([subscribe("b"), unsubscribe("b"), unsubscribe("b")], 404, NO_STREAM, "b"),
        ([subscribe("B"), unsubscribe("b")], 404, NO_STREAM, "b"),
        ([subscribe("a"), subscribe("a")], 409, IN_USE, "a"),
        ([subscribe("a"), subscribe("a", "ADAUSD", "MBO")], 409, IN_USE, "a"),
        ([subscribe("b", "BYBIT:XRPUSDT", "MBO")], 422, NO_MBO, "b"),
        # Where several things are wrong, the first of this order is told.
        ([subscribe("a"), subscribe("a", "DOGE", "MBX")], 400, "data_type: must be 'MBO' or 'MBP'", "a"),
        ([subscribe("a"), subscribe("a", "DOGE")], 409, IN_USE, "a"),
        ([subscribe("b", "DOGE", "MBO")], 404, DOGE, "b"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(
    frames: list[str], code: int, message: str, stream_id: str
) -> None:
    assert ask(a_session(), *frames) == refusal(code, message, stream_id)


def test_a_refused_subscribe_leaves_the_stream_as_it_was() -> None:
    session = a_session()
    started = ask(session, subscribe("a", max_levels=7)).started
    ask(session, subscribe("a", "ADAUSD"))
    assert session.streams == {"a": started}


def test_our_own_fault_shows_nothing_of_itself() -> None:
    assert error_frame(InternalError("a")) == Error(code=500, message="internal error", stream_id="a")


# Tokens


def hello(token: str | None = None, **more: Any) -> str:
    return json.dumps({"type": "Hello", "token": token, **more})


def a_stranger(limits: Limits = NO_RATE) -> Session:
    return Session(SERVED, limits, now=0.0, is_token="right".__eq__)


TOKEN_REQUIRED = "a token is required: send Hello with it first"
WRONG_TOKEN = Answer(
    Error(code=401, message="token: is not valid", stream_id=None), close_code=CloseCode.NOT_AUTHORISED
)


@pytest.mark.parametrize(
    ("frame", "stream_id"), [(PING, None), (subscribe("b"), "b"), (unsubscribe("b"), "b"), (hello(), None)]
)
def test_a_stranger_is_asked_for_the_token_whatever_he_asks(frame: str, stream_id: str | None) -> None:
    session = a_stranger()
    assert ask(session, frame) == refusal(401, TOKEN_REQUIRED, stream_id)
    assert (session.is_authorised, session.streams) == (False, {})


def test_a_hello_with_the_token_opens_the_session() -> None:
    session = a_stranger()
    said = Hello(token="right", client="ladder 1.4", heartbeat_interval_s=5)
    answer = ask(session, hello("right", client="ladder 1.4", heartbeat_interval_s=5))
    assert answer == Answer(HeartBeat(timestamp="2026-11-20T16:47:43.000250Z"), hello=said)
    assert session.is_authorised
    assert ask(session, subscribe("a")).started is not None


def test_a_wrong_token_ends_the_session() -> None:
    session = a_stranger()
    assert ask(session, hello("wrong")) == WRONG_TOKEN
    assert not session.is_authorised


@pytest.mark.parametrize("token", [None, "right", "wrong"])
def test_who_needs_to_show_no_token_is_greeted_with_any(token: str | None) -> None:
    assert ask(a_session(), hello(token)).message.type == "HeartBeat"
    assert ask(a_stranger(), hello("right"), hello(token)).message.type == "HeartBeat"


def test_a_stranger_learns_of_limits_and_form_before_he_is_asked_for_the_token() -> None:
    session = a_stranger(Limits(messages_per_s=0, message_burst=2))
    assert ask(session, " " * 65537).close_code == CloseCode.MESSAGE_TOO_BIG
    assert ask(session, '{"type":"Hello","token":1}').message == Error(
        code=400, message="token: must be a string of 1 to 512 characters"
    )
    assert ask(session, PING, hello("right")).message == Error(
        code=429, message="over the rate of 0 messages a second (burst 2)"
    )
    assert not session.is_authorised


# Limits


def test_a_connection_has_so_many_streams_and_no_more() -> None:
    session = a_session(Limits(max_streams=2, messages_per_s=1e9, message_burst=10**9))
    ask(session, subscribe("a"), subscribe("b"))
    assert ask(session, subscribe("c")) == refusal(429, "a connection may have at most 2 streams", "c")
    assert ask(session, unsubscribe("a"), subscribe("c")).started is not None


def test_by_default_a_connection_has_256_streams() -> None:
    session = a_session()
    answers = [ask(session, subscribe(f"s{number}")) for number in range(257)]
    assert [answer.message.type for answer in answers] == ["Subscribed"] * 256 + ["Error"]


def padded(size: int, padding: str = " ") -> str:
    """A good request of so many bytes."""
    room = size - len(unsubscribe()) - len('"note": "", ')
    width = len(padding.encode())
    note = padding * (room // width) + "." * (room % width)
    frame = unsubscribe().replace('"type"', f'"note": "{note}", "type"')
    assert len(frame.encode()) == size
    return frame


@pytest.mark.parametrize("padding", [" ", "é", "€", "𝄞"], ids=["1 byte", "2 bytes", "3 bytes", "4 bytes"])
def test_a_message_of_64_kib_is_read_and_a_longer_one_closes_the_connection(padding: str) -> None:
    session = a_session()
    ask(session, subscribe())
    assert ask(session, padded(65536, padding)).message == Unsubscribed(stream_id="a")
    assert ask(session, padded(65537, padding)) == Answer(
        Error(code=413, message="a message may have at most 65536 bytes", stream_id=None),
        close_code=CloseCode.MESSAGE_TOO_BIG,
    )


@pytest.mark.parametrize("data", [b"\0" * 65537, "\ud800" * 65537], ids=["binary", "lone surrogates"])
def test_any_longer_message_closes_the_connection(data: str | bytes) -> None:
    assert ask(a_session(), data).close_code == CloseCode.MESSAGE_TOO_BIG


RATE = "over the rate of 50 messages a second (burst 100)"


def test_a_burst_of_100_messages_is_answered_and_the_next_is_refused_with_its_stream() -> None:
    session = a_session(Limits())
    assert ask(session, *[PING] * 100).message.type == "HeartBeat"
    assert ask(session, PING) == refusal(429, RATE, None)
    assert ask(session, subscribe("a")) == refusal(429, RATE, "a")
    assert ask(session, '{"stream_id":"a"}') == refusal(429, RATE, "a")
    assert ask(session, "rubbish") == refusal(429, RATE, None)
    assert session.streams == {}


def test_after_a_burst_50_messages_a_second_are_answered() -> None:
    session = a_session(Limits())
    ask(session, *[PING] * 100)
    answers = [ask(session, PING, now=1.0) for _ in range(60)]
    assert [answer.message.type for answer in answers] == ["HeartBeat"] * 50 + ["Error"] * 10


def test_a_long_silence_earns_no_more_than_a_burst() -> None:
    session = a_session(Limits())
    answers = [ask(session, PING, now=1000.0) for _ in range(101)]
    assert [answer.message.type for answer in answers] == ["HeartBeat"] * 100 + ["Error"]


def test_a_client_that_keeps_to_the_rate_is_never_refused() -> None:
    session = a_session(Limits())
    answers = [ask(session, PING, now=number / 50) for number in range(2_000)]
    assert {answer.message.type for answer in answers} == {"HeartBeat"}


def test_a_persistent_flood_closes_the_connection() -> None:
    session = a_session(Limits())
    ask(session, *[PING] * 100)
    answers = [ask(session, PING) for _ in range(501)]
    assert answers[:500] == [refusal(429, RATE, None)] * 500
    assert answers[500] == Answer(
        Error(code=429, message=RATE, stream_id=None), close_code=CloseCode.POLICY_VIOLATION
    )


def test_a_client_that_is_a_little_over_the_rate_is_refused_but_stays() -> None:
    session = a_session(Limits())
    answers = [ask(session, PING, now=number / 60) for number in range(60 * 60)]
    assert sum(answer.message.type == "Error" for answer in answers) > 400
    assert {answer.close_code for answer in answers} == {None}


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_stretch_of_time_has_more_answers_than_the_burst_and_the_rate(pauses: list[float]) -> None:
    limits = Limits(messages_per_s=2, message_burst=5)
    session, now = a_session(limits), 0.0
    answered = []
    for pause in pauses:
        now += pause
        if ask(session, PING, now=now).message.type == "HeartBeat":
            answered.append(now)
    for (first, start), (last, end) in combinations(enumerate(answered), 2):
        assert last - first + 1 <= limits.message_burst + (end - start) * limits.messages_per_s + 1e-9


# Shutting down


def test_while_shutting_down_every_request_is_refused_with_its_stream() -> None:
    session = a_session()
    ask(session, subscribe("a"))
    assert session.shut_down() == Error(code=503, message="the server is shutting down", stream_id=None)
    frames: dict[str | bytes, str | None] = {
        PING: None,
        subscribe("b"): "b",
        unsubscribe("a"): "a",
        "rubbish": None,
        b"": None,
    }
    for frame, stream_id in frames.items():
        assert ask(session, frame) == refusal(503, "the server is shutting down", stream_id)
    assert list(session.streams) == ["a"]


def test_a_message_too_big_closes_the_connection_while_shutting_down_too() -> None:
    session = a_session()
    session.shut_down()
    assert ask(session, " " * 65537).close_code == CloseCode.MESSAGE_TOO_BIG


# Hostile clients. Whatever comes in, one valid message goes out.

TYPES = ("Subscribe", "Unsubscribe", "Ping", "Hello")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)
GOOD = {
    "type": st.sampled_from(TYPES),
    "stream_id": st.sampled_from(["a", "b", "c"]),
    "symbol": st.sampled_from(list(SERVED)),
    "data_type": st.sampled_from(get_args(DataType)),
    "max_levels": st.integers(1, 1000),
    "timestamp": st.just("2026-11-20T16:41:03Z"),
    "token": st.sampled_from(["right", "wrong", None]),
}
NEARLY_GOOD = {name: values | JSON for name, values in GOOD.items()}


@st.composite
def nearly_valid_frames(draw: st.DrawFn) -> str:
    """A request with some fields missing or replaced, and the text of some of those damaged."""
    content = draw(st.fixed_dictionaries({}, optional=NEARLY_GOOD))
    text = json.dumps(content, ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 3))):
        start, length = draw(st.integers(0, len(text))), draw(st.integers(0, 3))
        text = text[:start] + draw(st.text(max_size=2)) + text[start + length :]
    return text


FRAMES: st.SearchStrategy[str | bytes] = (
    st.fixed_dictionaries(GOOD).map(json.dumps)
    | nearly_valid_frames()
    | JSON.map(json.dumps)
    | st.text()
    | st.text(st.characters(categories=["Cs"]))
    | st.binary()
)


def assert_is_one_valid_message(answer: Answer) -> None:
    assert decode_answer(encode(answer.message)) == answer.message
    if isinstance(answer.message, Error):
        assert answer.message.code in WIRE_ERRORS
        assert answer.message.message.isprintable()
    assert answer.hello is None or isinstance(answer.message, HeartBeat)
    assert (answer.started is not None) == isinstance(answer.message, Subscribed)
    assert (answer.stopped is not None) == isinstance(answer.message, Unsubscribed)


@settings(max_examples=1000)
@given(FRAMES)
def test_any_frame_is_answered_by_one_valid_message(frame: str | bytes) -> None:
    assert_is_one_valid_message(ask(a_session(), frame))


@settings(max_examples=300)
@given(st.lists(FRAMES, max_size=5))
def test_only_the_token_opens_the_session_of_a_stranger(frames: list[str | bytes]) -> None:
    session = a_stranger()
    for frame in frames:
        answer = ask(session, frame)
        assert_is_one_valid_message(answer)
        assert session.is_authorised == (answer.hello is not None)
        if session.is_authorised:
            break
        assert isinstance(answer.message, Error)
        assert answer.message.code in (400, 401)


@settings(max_examples=200)
@given(st.lists(FRAMES, min_size=1, max_size=30), st.integers(1, 10))
def test_any_frames_are_answered_under_tight_limits_too(frames: list[str | bytes], burst: int) -> None:
    limits = Limits(
        max_message_bytes=80, max_streams=2, messages_per_s=1, message_burst=burst, refusal_burst=3
    )
    session = a_session(limits)
    for number, frame in enumerate(frames):
        assert_is_one_valid_message(ask(session, frame, now=number / 4))


class SessionRules(RuleBasedStateMachine):
    """Any order of frames against a model that is no more than a dictionary of streams."""

    STREAM_IDS = st.sampled_from(["a", "b", "c", "d", "e"])
    MAX_STREAMS = 3

    @initialize()
    def connect(self) -> None:
        self.session = a_session(
            Limits(max_streams=self.MAX_STREAMS, messages_per_s=1e9, message_burst=10**9)
        )
        self.streams: dict[str, Subscription] = {}
        self.is_shutting_down = False

    def answer(self, frame: str | bytes) -> Answer:
        answer = ask(self.session, frame)
        assert_is_one_valid_message(answer)
        assert answer.close_code is None
        return answer

    def assert_refused(self, answer: Answer, code: int, stream_id: str | None) -> None:
        assert isinstance(answer.message, Error)
        assert (answer.message.code, answer.message.stream_id) == (code, stream_id)

    @rule(
        stream_id=STREAM_IDS,
        symbol=st.sampled_from([*SERVED, "DOGE"]),
        data_type=st.sampled_from(get_args(DataType)),
        max_levels=st.integers(1, 1000),
    )
    def subscribe(self, stream_id: str, symbol: str, data_type: DataType, max_levels: int) -> None:
        answer = self.answer(subscribe(stream_id, symbol, data_type, max_levels=max_levels))
        if self.is_shutting_down:
            self.assert_refused(answer, 503, stream_id)
        elif stream_id in self.streams:
            self.assert_refused(answer, 409, stream_id)
        elif symbol not in SERVED:
            self.assert_refused(answer, 404, stream_id)
        elif data_type not in SERVED[symbol]:
            self.assert_refused(answer, 422, stream_id)
        elif len(self.streams) == self.MAX_STREAMS:
            self.assert_refused(answer, 429, stream_id)
        else:
            stream = Subscription(stream_id, symbol, data_type, max_levels)
            self.streams[stream_id] = stream
            assert answer == Answer(
                Subscribed(stream_id=stream_id, symbol=symbol, data_type=data_type), started=stream
            )

    @rule(stream_id=STREAM_IDS)
    def unsubscribe(self, stream_id: str) -> None:
        answer = self.answer(unsubscribe(stream_id))
        if self.is_shutting_down:
            self.assert_refused(answer, 503, stream_id)
        elif stream_id not in self.streams:
            self.assert_refused(answer, 404, stream_id)
        else:
            stopped = self.streams.pop(stream_id)
            assert answer == Answer(Unsubscribed(stream_id=stream_id), stopped=stopped)

    @rule()
    def ping(self) -> None:
        answer = self.answer(PING)
        if self.is_shutting_down:
            self.assert_refused(answer, 503, None)
        else:
            assert answer == Answer(HeartBeat(timestamp="2026-11-20T16:47:43.000250Z"))

    @rule(case=st.sampled_from(BAD_REQUESTS))
    def send_a_bad_request(self, case: tuple[str | bytes, str, str | None]) -> None:
        data, _, stream_id = case
        self.assert_refused(self.answer(data), 503 if self.is_shutting_down else 400, stream_id)

    @precondition(lambda self: len(self.streams) >= 2)
    @rule()
    def shut_down(self) -> None:
        self.session.shut_down()
        self.is_shutting_down = True

    @invariant()
    def the_streams_are_those_of_the_model(self) -> None:
        assert self.session.streams == self.streams


SessionRules.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestSessionRules = SessionRules.TestCase
