"""The text of a live gateway's handshake, before its stream of DBN begins: lines of `key=value|key=value`.

    gateway  lsg_version=…                                    who is speaking
    gateway  cram=CHALLENGE                                   prove that you know the key
    client   auth=DIGEST-BUCKET|dataset=…|encoding=dbn|…      the proof, and what the session is to be like
    gateway  success=1|session_id=…                           or success=0|error=…, and it closes
    client   schema=mbo|stype_in=raw_symbol|symbols=A,B|…     as often as wanted
    client   start_session=0                                  from here on the gateway sends DBN

Source: Databento's Raw API (databento.com/docs/api-reference-live, read 2026-11-20), and what its clients in Python
(0.87) and Rust (0.47) send and take.
"""

import hashlib
from dataclasses import dataclass

MAX_LINE_BYTES = 64 * 1024
"""500 symbols, the most that clients put into one line, take 36 kB when they are as long as symbols get."""

SYMBOLS_PER_LINE = 500

ALL_SYMBOLS = "ALL_SYMBOLS"

MAX_DIGITS = 20
"""Of a number of 64 bits. Python refuses to read thousands of them, and not by saying that they are no number."""

BUCKET_LENGTH = 5
"""So many characters at a key's end go over the wire as they are: by them the gateway finds the key."""

END_OF_RECORDING = "End of recording"
"""What `market-depth publish` says in a system record (replay completed) before it closes, there being no more."""

Fields = dict[str, str]


class GatewayError(Exception):
    """The other side of a gateway's connection does not speak its protocol; the text says in what."""


class Lines:
    """Cuts what arrives into lines, and keeps what follows the last of them."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._searched = 0

    def push(self, data: bytes) -> None:
        """Add what arrived."""
        self._received += data

    def next_line(self) -> Fields | None:
        """The fields of the next line, or None until all of it is there. Raises: GatewayError."""
        end = self._received.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._received)
        if max(end, self._searched) > MAX_LINE_BYTES:
            raise GatewayError(f"a line is longer than {MAX_LINE_BYTES} bytes")
        if end < 0:
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._searched = 0
        return parse_line(line)

    def rest(self) -> bytes:
        """What follows the last line, which is no text."""
        return bytes(self._received)


def parse_line(line: bytes) -> Fields:
    """The fields of a line without its end; a field without a value has an empty one. Raises: GatewayError."""
    try:
        text = line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise GatewayError("a line is not text") from error
    if not text.isprintable():
        raise GatewayError("a line is not text")
    return {key: value for key, _, value in (field.partition("=") for field in text.split("|"))}


def line_of(fields: dict[str, str | int]) -> bytes:
    """A line that says `fields`."""
    return "|".join(f"{key}={value}" for key, value in fields.items()).encode() + b"\n"


def challenge_response(challenge: str, key: str) -> str:
    """What proves to the sender of `challenge` that one knows `key`, without telling it."""
    digest = hashlib.sha256(f"{challenge}|{key}".encode()).hexdigest()
    return f"{digest}-{key[-BUCKET_LENGTH:]}"


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a client wants of a dataset."""

    symbols: tuple[str, ...] = (ALL_SYMBOLS,)
    schema: str = "mbo"
    stype_in: str = "raw_symbol"
    start_ns: int | None = None
    """Records from then on (`ts_event`, ns since the epoch); 0 for all there are, None for those to come."""
    snapshot: bool = False
    """Whether the books as they are shall come first."""
    number: int | None = None
    """By which the client knows it."""

    def lines(self) -> bytes:
        """The lines that ask for it."""
        batches = [
            self.symbols[at : at + SYMBOLS_PER_LINE] for at in range(0, len(self.symbols), SYMBOLS_PER_LINE)
        ]
        fields: dict[str, str | int] = {"schema": self.schema, "stype_in": self.stype_in}
        extra: dict[str, str | int] = {"snapshot": int(self.snapshot)}
        if self.start_ns is not None:
            extra["start"] = self.start_ns
        if self.number is not None:
            extra["id"] = self.number
        return b"".join(
            line_of({**fields, "symbols": ",".join(batch), **extra, "is_last": int(batch is batches[-1])})
            for batch in batches
        )

    @classmethod
    def of(cls, fields: Fields) -> "Subscription":
        """What a line asks for. Raises: GatewayError, which names the field that makes no sense."""
        symbols = tuple(dict.fromkeys(s for s in fields.get("symbols", "").split(",") if s))
        if not symbols:
            raise GatewayError("a subscription names no symbols")
        return cls(
            symbols,
            fields["schema"],
            fields.get("stype_in", "raw_symbol"),
            _integer(fields, "start"),
            bool(_integer(fields, "snapshot")),
            _integer(fields, "id"),
        )


def _integer(fields: Fields, key: str) -> int | None:
    text = fields.get(key)
    if text is None:
        return None
    number = whole_number(text)
    if number is None:
        raise GatewayError(f"{key} is no whole number: {text[:40]!r}")
    return number


def whole_number(text: str) -> int | None:
    """The number of 64 bits that `text` says in decimal digits, or None."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS and int(text) < 2**64):
        return None
    return int(text)
