"""Nanoseconds since the epoch as text that any client can read, and nothing else accepted as such."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.timestamp import (
    NS_PER_S,
    instant_ns,
    is_timestamp,
    timestamp_ns,
    timestamp_text,
    timestamp_texts,
)

TIMES = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (999_999_999, "1970-01-01T00:00:00.999999Z"),
        (951_782_400 * 10**9, "2000-02-29T00:00:00.000000Z"),
        (1_795_193_263_000_250_999, "2026-11-20T16:47:43.000250Z"),
        (2**63 - 1, "2262-04-11T23:47:16.854775Z"),
        (2**64 - 1, "2262-04-11T23:47:16.854775Z"),  # DBN's undefined timestamp
    ],
)
def test_timestamp_text_is_cut_to_whole_microseconds(ns: int, text: str) -> None:
    assert timestamp_text(ns) == text


@given(st.integers(0, 2**63 - 1))
def test_timestamp_text_names_the_instant(ns: int) -> None:
    instant = datetime.fromisoformat(timestamp_text(ns))
    assert instant - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(microseconds=ns // 1000)


@given(st.lists(TIMES, max_size=20))
def test_timestamp_texts_are_the_text_of_each(ns: list[int]) -> None:
    assert list(timestamp_texts(np.array(ns, np.uint64))) == [timestamp_text(value) for value in ns]


@given(TIMES)
def test_our_own_timestamps_are_timestamps(ns: int) -> None:
    assert is_timestamp(timestamp_text(ns))


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T16:41:03Z",
        "2026-11-20T16:41:03.5Z",
        "2026-11-20T16:41:03.123456789Z",
        "2026-11-20T16:41:03+01:00",
        "2026-11-20T16:41:03.000-23:59",
        "2026-11-20t16:41:03z",
        "2024-02-29T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ],
)
def test_rfc_3339_date_times_are_timestamps(text: str) -> None:
    assert is_timestamp(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1795193263",
        "2026-11-20",
        "2026-11-20T16:41:03",  # no offset
        "2026-11-20 16:41:03Z",
        "2026-11-20T16:41Z",
        "2026-11-20T16:41:03.Z",
        "2026-11-20T16:41:03,5Z",
        "2026-11-20T16:41:03+0100",
        "2026-11-20T16:41:03+24:00",
        "2026-11-20T16:41:03+23:60",
        "2026-11-20T24:00:00Z",
        "2026-11-20T16:60:00Z",
        "2026-11-20T16:41:60Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "20261120T164103Z",
        "2026-W47-5T16:41:03Z",
        " 2026-11-20T16:41:03Z",
        "2026-11-20T16:41:03Z\n",
        "２０２６-11-20T16:41:03Z",
    ],
)
def test_anything_else_is_not(text: str) -> None:
    assert not is_timestamp(text)


@given(st.text(max_size=30) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"))
def test_any_text_is_a_timestamp_or_not(text: str) -> None:
    assert is_timestamp(text) in (True, False)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T00:00:00.0000000019Z", 1),
        ("1970-01-01T01:00:00.5+01:00", 500_000_000),
        ("1969-12-31T19:00:00-05:00", 0),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
        ("2025-09-24t20:00:00.000860001z", 1_758_744_000_000_860_001),
        ("2025-09-24T20:00:00.123456789-05:30", 1_758_763_800_123_456_789),
    ],
)
def test_timestamp_ns_is_exact_to_the_nanosecond(text: str, ns: int) -> None:
    assert timestamp_ns(text) == ns


@given(st.integers(0, 2**63 - 1))
def test_timestamp_ns_takes_back_what_timestamp_text_has_written(ns: int) -> None:
    assert timestamp_ns(timestamp_text(ns)) == ns // 1000 * 1000


@pytest.mark.parametrize("text", ["", "now", "2026-02-30T00:00:00Z", "2026-11-20", "1795193263"])
def test_timestamp_ns_refuses_what_is_no_timestamp(text: str) -> None:
    with pytest.raises(ValueError, match="is no RFC 3339 date-time"):
        timestamp_ns(text)


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("2025-09-24T20:00:00.000860001Z", 1_758_744_000_000_860_001),
        ("2025-09-24T22:00:00+02:00", 1_758_744_000 * NS_PER_S),
        (1_758_744_000_000, 1_758_744_000 * NS_PER_S),
        ("1758744000000", 1_758_744_000 * NS_PER_S),
        (1_758_744_000_000_000_001, 1_758_744_000_000_000_001),
        ("1758744000000000001", 1_758_744_000_000_000_001),
        (0, 0),
    ],
)
def test_an_instant_is_a_date_time_or_ns_or_ms(value: object, ns: int) -> None:
    assert instant_ns(value) == ns
