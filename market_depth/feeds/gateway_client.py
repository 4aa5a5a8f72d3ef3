"""A client's side of a live gateway's handshake, without a socket: bytes in, bytes to send out.

greeting ──► challenge ──► authenticating ──► streaming     `lsg_version`, `cram` and `success` arrived
"""

from enum import Enum, auto

from market_depth.feeds.gateway_text import (
    Fields,
    GatewayError,
    Lines,
    Subscription,
    challenge_response,
    line_of,
)

CLIENT_NAME = "market-depth"


class RefusedError(GatewayError):
    """The gateway does not let us in; the text is what it says."""


class _State(Enum):
    GREETING = auto()
    CHALLENGE = auto()
    AUTHENTICATING = auto()
    STREAMING = auto()


class GatewayClient:
    """One session that asks for one subscription."""

    def __init__(
        self, subscription: Subscription, *, key: str, dataset: str | None, heartbeat_interval_s: int
    ) -> None:
        """`dataset`: None leaves the choice to a gateway that has only one."""
        self._subscription = subscription
        self._key = key
        self._dataset = dataset
        self._heartbeat_interval_s = heartbeat_interval_s
        self._lines = Lines()
        self._state = _State.GREETING
        self.session_id = ""
        """What the gateway calls the session."""

    @property
    def is_streaming(self) -> bool:
        """Whether the handshake is over, and all that arrives is DBN."""
        return self._state is _State.STREAMING

    def receive(self, data: bytes) -> bytes:
        """What to send now that `data` arrived. Not to be called while streaming.

        Raises: RefusedError; GatewayError when the other side is no gateway.
        """
        self._lines.push(data)
        reply = b""
        while not self.is_streaming and (fields := self._lines.next_line()) is not None:
            reply += self._answer(fields)
        return reply

    def rest(self) -> bytes:
        """What arrived behind the handshake: the beginning of the DBN stream."""
        return self._lines.rest()

    def _answer(self, fields: Fields) -> bytes:
        # A gateway that is full says so instead of the line that is due.
        if fields.get("success", "1") != "1":
            raise RefusedError(fields.get("error") or "the gateway refused the session")
        match self._state:
            case _State.GREETING:
                _expect(fields, "lsg_version")
                self._state = _State.CHALLENGE
                return b""
            case _State.CHALLENGE:
                challenge = _expect(fields, "cram")
                self._state = _State.AUTHENTICATING
                return self._authentication(challenge)
            case _:
                _expect(fields, "success")
                self.session_id = fields.get("session_id", "")
                self._state = _State.STREAMING
                return self._subscription.lines() + line_of({"start_session": 0})

    def _authentication(self, challenge: str) -> bytes:
        fields: dict[str, str | int] = {"auth": challenge_response(challenge, self._key)}
        if self._dataset is not None:
            fields["dataset"] = self._dataset
        return line_of(
            fields
            | {
                "encoding": "dbn",
                "ts_out": 0,
                "compression": "none",
                "heartbeat_interval_s": self._heartbeat_interval_s,
                # A gateway that skipped records would leave the books wrong: rather late than wrong.
                "slow_reader_behavior": "warn",
                "client": CLIENT_NAME,
            }
        )


def _expect(fields: Fields, key: str) -> str:
    value = fields.get(key)
    if value is None:
        raise GatewayError(f"a gateway's {key} was expected")
    return value
