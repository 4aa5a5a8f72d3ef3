"""A gateway's side of one connection, without a socket and without a clock: bytes in, bytes to send out.

    authenticating ──► subscribing ──► streaming ──► closed
          └─────────────────┴──────────────┴──────────►  what came is wrong: the last bytes to send say what

What is wrong before the client is authenticated is said in text, afterwards in an error record. A record needs the
stream's metadata before it, so until the client starts the session, answers are kept.
Source: Databento's Raw API and its errors (databento.com/docs/api-live/basics/errors, read 2026-11-20).
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import numpy as np
from databento_dbn import (
    ErrorCode,
    ErrorMsg,
    Metadata,
    SType,
    SymbolMappingMsg,
    SystemCode,
    SystemMsg,
)

from market_depth.feeds.dbn_decoding import TS_OUT_BYTES, WORD
from market_depth.feeds.gateway_text import (
    ALL_SYMBOLS,
    Fields,
    GatewayError,
    Lines,
    Subscription,
    challenge_response,
    line_of,
    whole_number,
)
from protocol.events import ORDER_EVENT, RECORD_LENGTH, OrderEvents

VERSION = "market-depth 1"
"""What the greeting says; clients look only whether there is something."""

SCHEMA = "mbo"

DEFAULT_HEARTBEAT_INTERVAL_S = 30
HEARTBEAT_INTERVALS_S = range(5, 1801)

MAX_SUBSCRIPTIONS = 1_000
"""Lines of one session: each leaves a record that waits for the start."""

MAX_UNRESOLVED = 2000
"""Each symbol that we do not have is answered by a record of its own."""

MAX_TEXT_BYTES = 300
"""An error or system record has room for some more."""

MAX_SYMBOL_BYTES = 70

UNKNOWN_SYMBOL = ErrorCode.from_str("symbol_resolution_failed")
INVALID_SUBSCRIPTION = ErrorCode.from_str("invalid_subscription")
INTERNAL_ERROR = ErrorCode.from_str("internal_error")
HEARTBEAT = SystemCode.from_str("heartbeat")
SUBSCRIPTION_ACK = SystemCode.from_str("subscription_ack")
REPLAY_COMPLETED = SystemCode.from_str("replay_completed")
RAW_SYMBOL = SType.from_str("raw_symbol")
INSTRUMENT_ID = SType.from_str("instrument_id")

NO_TIME = 2**64 - 1


@dataclass(frozen=True)
class Catalog:
    """What a gateway has."""

    dataset: str
    symbols: Mapping[int, str]
    """By instrument id."""

    def find(self, stype_in: str, symbol: str) -> list[int]:
        """The ids of the instruments that `symbol` stands for. Raises: GatewayError for a kind that we do not know."""
        match stype_in:
            case "raw_symbol" | "instrument_id" if symbol == ALL_SYMBOLS:
                return list(self.symbols)
            case "raw_symbol":
                return self._by_symbol.get(symbol, [])
            case "instrument_id":
                return self._by_id_text.get(symbol, [])
        raise GatewayError(f"stype_in {stype_in} is not served: ask by raw_symbol or instrument_id")

    # A line may name thousands of symbols, and a file may have as many.

    @cached_property
    def _by_symbol(self) -> dict[str, list[int]]:
        ids: dict[str, list[int]] = {}
        for instrument_id, symbol in self.symbols.items():
            ids.setdefault(symbol, []).append(instrument_id)
        return ids

    @cached_property
    def _by_id_text(self) -> dict[str, list[int]]:
        return {str(instrument_id): [instrument_id] for instrument_id in self.symbols}


class SessionState(Enum):
    """How far a session has come."""

    AUTHENTICATING = auto()
    SUBSCRIBING = auto()
    STREAMING = auto()
    CLOSED = auto()


class GatewaySession:
    """The rules of one connection."""

    def __init__(self, catalog: Catalog, *, key: str | None, challenge: str, session_id: str) -> None:
        """`key`: what the client must know, None for anything. `challenge`: unique and not to be guessed."""
        self.state = SessionState.AUTHENTICATING
        self.is_authenticated = False
        """Whether the client was let in; it stays so after the end."""
        self.problem: str | None = None
        """Why we ended the session, if we did."""
        self.ts_out = False
        self.heartbeat_interval_s = DEFAULT_HEARTBEAT_INTERVAL_S
        self.start_ns = 0
        """The first `ts_event` that is asked for, ns since the epoch; 0 for all there is."""
        self.client = ""
        """What the client calls itself."""
        self.wanted: set[int] = set()
        """Ids of the instruments asked for."""
        self._catalog = catalog
        self._key = key
        self._challenge = challenge
        self._session_id = session_id
        self._lines = Lines()
        self._earliest_ns: int | None = None
        self._unresolved: set[str] = set()
        self._subscriptions = 0
        self._kept = bytearray()  # records to send behind the metadata

    def greeting(self) -> bytes:
        """What to send first."""
        return line_of({"lsg_version": VERSION}) + line_of({"cram": self._challenge})

    def receive(self, data: bytes, now_ns: int, *, is_full: bool = False) -> bytes:
        """What to send now that `data` arrived; whether to close then, `state` tells.

        `is_full`: whether nobody else may be let in.
        """
        self._lines.push(data)
        reply = b""
        while self.state is not SessionState.CLOSED:
            try:
                fields = self._lines.next_line()
                if fields is None:
                    break
                reply += self._answer(fields, now_ns, is_full)
            except GatewayError as error:
                reply += self.fail(str(error), now_ns)
        return reply

    def fail(self, problem: str, now_ns: int, code: ErrorCode = INVALID_SUBSCRIPTION) -> bytes:
        """End the session. Returns: what to send last, which says why."""
        state, self.state = self.state, SessionState.CLOSED
        self.problem = problem
        if state is SessionState.AUTHENTICATING:
            return line_of({"success": 0, "error": problem.replace("|", " ")})
        record = _error(problem, code, now_ns)
        if state is SessionState.SUBSCRIBING:
            return self._metadata(now_ns) + self._stamped(bytes(self._kept) + record, now_ns)
        return self._stamped(record, now_ns)

    def records(self, events: OrderEvents, now_ns: int) -> bytes:
        """The records of `events` that are asked for."""
        if len(self.wanted) < len(self._catalog.symbols):
            events = events[np.isin(events["instrument_id"], list(self.wanted))]
        if not self.ts_out:
            return events.tobytes()
        rows = np.empty((len(events), ORDER_EVENT.itemsize + TS_OUT_BYTES), np.uint8)
        rows[:, : ORDER_EVENT.itemsize] = (
            np.ascontiguousarray(events).view(np.uint8).reshape(-1, ORDER_EVENT.itemsize)
        )
        rows[:, 0] = RECORD_LENGTH + TS_OUT_BYTES // WORD
        rows[:, ORDER_EVENT.itemsize :] = np.frombuffer(now_ns.to_bytes(TS_OUT_BYTES, "little"), np.uint8)
        return rows.tobytes()

    def heartbeat(self, now_ns: int) -> bytes:
        """What to send when there was nothing else for `heartbeat_interval_s`."""
        return self.notice("Heartbeat", HEARTBEAT, now_ns)

    def notice(self, text: str, code: SystemCode, now_ns: int) -> bytes:
        """A system record."""
        return self._stamped(bytes(SystemMsg(ts_event=now_ns, msg=_short(text), code=code)), now_ns)

    def _answer(self, fields: Fields, now_ns: int, is_full: bool) -> bytes:
        match self.state:
            case SessionState.AUTHENTICATING:
                self._authenticate(fields)
                if is_full:
                    raise GatewayError("Connection limit reached")
                self.is_authenticated = True
                self.state = SessionState.SUBSCRIBING
                return line_of({"success": 1, "session_id": self._session_id})
            case SessionState.SUBSCRIBING if "start_session" in fields:
                self.state = SessionState.STREAMING
                self.start_ns = self._earliest_ns or 0
                kept, self._kept = bytes(self._kept), bytearray()
                return self._metadata(now_ns) + self._stamped(kept, now_ns)
        if "schema" not in fields:
            raise GatewayError("a subscription, or the session's start, was expected")
        answer = self._subscribe(Subscription.of(fields), now_ns)
        if self.state is SessionState.STREAMING:
            return self._stamped(answer, now_ns)
        self._kept += answer
        return b""

    def _authenticate(self, fields: Fields) -> None:
        proof = fields.get("auth")
        if proof is None:
            raise GatewayError("Authentication was expected")
        # Compared in a time that does not tell how much of it is right.
        if self._key is not None and not hmac.compare_digest(
            proof.encode(), challenge_response(self._challenge, self._key).encode()
        ):
            raise GatewayError("Authentication failed")
        served = self._catalog.dataset
        dataset = fields.get("dataset", served)
        if dataset != served:
            raise GatewayError(f"Unknown dataset {dataset[:40]}: this gateway serves {served}")
        for name, only in (("encoding", "dbn"), ("compression", "none")):
            if fields.get(name, only) != only:
                raise GatewayError(f"Unknown {name} {fields[name][:40]}: this gateway serves {only}")
        interval = whole_number(fields.get("heartbeat_interval_s", str(DEFAULT_HEARTBEAT_INTERVAL_S)))
        if interval not in HEARTBEAT_INTERVALS_S:
            allowed = f"{HEARTBEAT_INTERVALS_S[0]} to {HEARTBEAT_INTERVALS_S[-1]}"
            raise GatewayError(f"heartbeat_interval_s must be {allowed}")
        assert interval is not None, "as None is none of those allowed"
        self.heartbeat_interval_s = interval
        self.ts_out = fields.get("ts_out", "0") == "1"
        self.client = fields.get("client", "")[:80]

    def _subscribe(self, asked: Subscription, now_ns: int) -> bytes:
        if asked.schema != SCHEMA:
            raise GatewayError(f"schema {asked.schema[:40]} is not served: this gateway has {SCHEMA}")
        if asked.snapshot and asked.start_ns is not None:
            raise GatewayError("a subscription has either a snapshot or a start")
        if self._subscriptions == MAX_SUBSCRIPTIONS:
            raise GatewayError(f"more than {MAX_SUBSCRIPTIONS} subscriptions")
        self._subscriptions += 1
        number = self._subscriptions if asked.number is None else asked.number
        start_ns = asked.start_ns or 0
        self._earliest_ns = start_ns if self._earliest_ns is None else min(self._earliest_ns, start_ns)
        answer = bytearray()
        for symbol in asked.symbols:
            ids = self._catalog.find(asked.stype_in, symbol)
            for instrument_id in ids:
                if instrument_id not in self.wanted:
                    self.wanted.add(instrument_id)
                    answer += self._mapping(asked.stype_in, symbol, instrument_id, now_ns)
            if not ids and symbol not in self._unresolved:
                if len(self._unresolved) == MAX_UNRESOLVED:
                    raise GatewayError(f"more than {MAX_UNRESOLVED} symbols are unknown")
                self._unresolved.add(symbol)
                answer += _error(f"Unknown symbol {symbol}", UNKNOWN_SYMBOL, now_ns)
        text = f"Subscription request {number} for {SCHEMA} data succeeded"
        answer += bytes(SystemMsg(ts_event=now_ns, msg=text, code=SUBSCRIPTION_ACK))
        return bytes(answer)

    def _mapping(self, stype_in: str, asked: str, instrument_id: int, now_ns: int) -> bytes:
        symbol = self._catalog.symbols[instrument_id]
        if asked == ALL_SYMBOLS:
            asked = symbol if stype_in == "raw_symbol" else str(instrument_id)
        return bytes(
            SymbolMappingMsg(
                publisher_id=0,
                instrument_id=instrument_id,
                ts_event=now_ns,
                stype_in=SType.from_str(stype_in),
                stype_in_symbol=_short(asked, MAX_SYMBOL_BYTES),
                stype_out=RAW_SYMBOL,
                stype_out_symbol=_short(symbol, MAX_SYMBOL_BYTES),
                start_ts=NO_TIME,
                end_ts=NO_TIME,
            )
        )

    def _metadata(self, now_ns: int) -> bytes:
        """Those of a live stream: what it holds, its records tell."""
        return Metadata(
            dataset=self._catalog.dataset,
            start=now_ns,
            stype_in=None,
            stype_out=INSTRUMENT_ID,
            schema=None,
            symbols=[],
            partial=[],
            not_found=[],
            mappings=[],
            ts_out=self.ts_out,
        ).encode()

    def _stamped(self, records: bytes, now_ns: int) -> bytes:
        """`records` with their sending time appended to each, where the client asked for that."""
        if not self.ts_out:
            return records
        stamped = bytearray()
        at = 0
        while at < len(records):
            words = records[at]
            end = at + words * WORD
            stamped.append(words + TS_OUT_BYTES // WORD)
            stamped += records[at + 1 : end] + now_ns.to_bytes(TS_OUT_BYTES, "little")
            at = end
        return bytes(stamped)


def _error(problem: str, code: ErrorCode, now_ns: int) -> bytes:
    return bytes(ErrorMsg(ts_event=now_ns, err=_short(problem), is_last=True, code=code))


def _short(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore")
