"""A row of ours is a record of DBN, byte for byte."""

import databento_dbn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.events import (
    ORDER_EVENT,
    RECORD_LENGTH,
    RTYPE_MBO,
    UNDEF_PRICE,
    Action,
    Flag,
    Side,
    order_events,
)

U8, U16, U32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
TIMES = st.integers(0, 2**64 - 1)

FIELDS = st.fixed_dictionaries(
    {
        "publisher_id": U16,
        "instrument_id": U32,
        "ts_event": TIMES,
        "order_id": st.integers(0, 2**64 - 1),
        "price": st.integers(-(2**63), 2**63 - 1) | st.just(UNDEF_PRICE),
        "size": U32,
        "flags": U8,
        "channel_id": U8,
        "action": st.sampled_from(Action),
        "side": st.sampled_from(Side),
        "ts_recv": TIMES,
        "ts_in_delta": st.integers(-(2**31), 2**31 - 1),
        "sequence": U32,
    }
)

ORDINARY = {
    "publisher_id": 1,
    "instrument_id": 7,
    "ts_event": 1_790_000_000_000_000_000,
    "order_id": 42,
    "price": 102_450_000_000,
    "size": 3,
    "flags": int(Flag.LAST),
    "channel_id": 0,
    "action": Action.ADD,
    "side": Side.BID,
    "ts_recv": 1_790_000_000_000_001_000,
    "ts_in_delta": 1000,
    "sequence": 5,
}


def our_bytes(fields: dict[str, int]) -> bytes:
    events = order_events(1)
    for name, value in fields.items():
        events[name] = value
    return events.tobytes()


def dbn_record(fields: dict[str, int]) -> databento_dbn.MBOMsg:
    others = {name: value for name, value in fields.items() if name not in ("action", "side")}
    return databento_dbn.MBOMsg(
        action=databento_dbn.Action(chr(fields["action"])),
        side=databento_dbn.Side(chr(fields["side"])),
        **others,
    )


@given(FIELDS)
@settings(max_examples=300)
def test_any_event_has_the_bytes_of_the_dbn_record(fields: dict[str, int]) -> None:
    assert our_bytes(fields) == bytes(dbn_record(fields))


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("action", Action)
def test_every_action_and_side_is_the_one_dbn_calls_so(action: Action, side: Side) -> None:
    fields = {**ORDINARY, "action": action, "side": side}
    record = dbn_record(fields)
    assert our_bytes(fields) == bytes(record)
    assert (record.action, record.side) == (
        getattr(databento_dbn.Action, action.name),
        getattr(databento_dbn.Side, side.name),
    )


def test_no_action_and_no_side_of_dbn_is_missing() -> None:
    assert {action.name for action in databento_dbn.Action.variants()} == set(Action.__members__)
    assert {side.name for side in databento_dbn.Side.variants()} == set(Side.__members__)


def test_every_set_of_flags_has_the_bytes_of_the_dbn_record() -> None:
    for flags in range(256):
        fields = {**ORDINARY, "flags": flags}
        assert our_bytes(fields) == bytes(dbn_record(fields)), Flag(flags)


@pytest.mark.parametrize("flag", Flag)
def test_every_flag_has_the_value_of_dbn(flag: Flag) -> None:
    assert flag == getattr(databento_dbn, f"F_{flag.name}")


def test_constants_are_those_of_dbn() -> None:
    assert UNDEF_PRICE == databento_dbn.UNDEF_PRICE
    assert int(databento_dbn.RType.MBO) == RTYPE_MBO


def test_a_row_has_the_size_of_a_record_and_no_padding() -> None:
    assert ORDER_EVENT.itemsize == databento_dbn.MBOMsg.size_hint == 56
    assert sum(ORDER_EVENT[name].itemsize for name in ORDER_EVENT.names or ()) == 56
    assert RECORD_LENGTH * 4 == 56


def test_new_events_are_zero_but_for_their_headers() -> None:
    events = order_events(3)
    assert events.shape == (3,)
    assert np.array_equal(events["length"], [RECORD_LENGTH] * 3)
    assert np.array_equal(events["rtype"], [RTYPE_MBO] * 3)
    assert not any(events[name].any() for name in (ORDER_EVENT.names or ())[2:])
