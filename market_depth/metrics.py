"""What the server has counted since it started: plain numbers, as cheap to raise as any attribute.

Names are those of the metrics at `/metrics`, without `market_depth_` and `_total`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Refusal(StrEnum):
    """Why a connection was not taken: the label `reason` of `connections_refused`."""

    SERVER_FULL = "server_full"
    HOST_FULL = "host_full"
    STRANGE_NAME = "strange_name"
    ORIGIN = "origin"
    UNAUTHORISED = "unauthorised"
    HEAD_TIMEOUT = "head_timeout"
    HANDSHAKE = "handshake"


class Cut(StrEnum):
    """Why we ended a connection that had been taken: the label `reason` of `connections_cut`."""

    STALLED = "stalled"
    """No byte taken for a long time."""
    BACKLOG = "backlog"
    """More answers waiting to be read than may wait."""
    SILENT = "silent"
    """No byte received for a long time, not even a pong."""
    FLOOD = "flood"
    """Too many messages in spite of the refusals."""
    MESSAGE_TOO_BIG = "message_too_big"
    PROTOCOL = "protocol"
    """What is no WebSocket."""
    FAILED = "failed"
    """Our own fault."""


@dataclass(slots=True)
class ServerCounts:
    """What happened on the server's port."""

    connections_opened: int = 0
    """WebSocket clients that completed the handshake."""
    http_requests: Counter[int] = field(default_factory=Counter)
    """Answers to plain HTTP requests by status."""
    connections_refused: Counter[Refusal] = field(default_factory=Counter)
    connections_cut: Counter[Cut] = field(default_factory=Counter)
    frames_sent: int = 0
    """Market data frames written or begun."""
    bytes_sent: int = 0
    """Bytes of the frames that were written or begun: market data, answers, heartbeats; as they are before compression."""
    frames_skipped: int = 0
    """Market data frames left out because a newer one of the same stream was due before they were written."""
    errors: Counter[int] = field(default_factory=Counter)
    """`Error` frames by code."""
