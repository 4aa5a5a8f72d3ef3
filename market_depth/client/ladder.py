"""A market's book as a trader's ladder in text: asks above, bids below, the spread between them.

Prices stand on one axis, so a move in price is a move up or down the screen, and the spread keeps its place. What
does not fit the width is left out, least important first: cumulative bars, cumulative sizes, order counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from rich.console import Group
from rich.text import Text

from market_depth.client.connection import Connecting, Live, Waiting
from market_depth.client.replay_keys import HELP
from market_depth.client.replay_remote import ReplayStatus
from market_depth.client.view import Change, Level, MarketView, Side
from protocol.timestamp import timestamp_text

Column = Literal["orders", "total", "size", "price"]

GAP = "  "

MIN_DETAIL = 12
"""Columns that a bar or a queue needs to say something; below it a number makes room."""

SECOND_DETAIL = 24
"""Columns from which each of two details can be read beside the other."""

FRAME_LINES = 6
"""Lines of a full screen that are no price levels: two of header, a blank, titles, the spread, the foot."""

LATE_S, STALE_S = 2.0, 10.0
"""Frames come every 0.3 s: after 2 s something is slow, after 10 s nobody should trade on what stands there."""

SIDE_STYLE: dict[Side, str] = {"Bid": "green", "Ask": "red"}
FLASH_STYLE: dict[Change, str] = {"more": "bold reverse", "less": "bold yellow"}

REPLAY_SIGNS = {
    "RUNNING": ("▶", "green"),
    "PAUSED": ("‖", "yellow"),
    "DONE": ("■ done", "yellow"),
    "IDLE": ("■ stopped", "yellow"),
    "FAILED": ("✗ failed", "bold red"),
}

EIGHTHS = " ▏▎▍▌▋▊▉█"


def ladder(view: MarketView, now: float, width: int, height: int | None = None) -> Group:
    """The screen at the moment `now`: `height` lines, or as many as the book needs when that is None."""
    depth = view.subscription.max_levels
    rows = depth if height is None else max(1, min(depth, (height - FRAME_LINES) // 2))
    if view.frame is None:
        lines = [_waiting(view)]
    else:
        lines = _book(view, now, width, rows, keeps_rows=height is not None)
    lines = [_title(view, now, width), _statistics(view, now, width), Text(), *lines]
    if height is not None:
        lines += [Text() for _ in range(height - 1 - len(lines))]
        lines = [*lines[: height - 1], _foot(view, rows)]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def _book(view: MarketView, now: float, width: int, rows: int, *, keeps_rows: bool) -> list[Text]:
    asks, bids = view.asks[:rows], view.bids[:rows]
    layout = _Layout.fit([*asks, *bids], width, is_by_order=view.subscription.data_type == "MBO")
    above = [layout.row(view, "Ask", level, now) for level in reversed(asks)] or [layout.empty("Ask")]
    below = [layout.row(view, "Bid", level, now) for level in bids] or [layout.empty("Bid")]
    if keeps_rows:
        # So the spread does not jump about when a side has fewer levels than there is room for.
        above = [Text() for _ in range(rows - len(above))] + above
    return [layout.titles(), *above, _spread(view, width), *below]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which columns a ladder has and how wide each is. The details stand at the right: bars, or a bar and the queue."""

    widths: dict[Column, int]
    size_bar: int
    total_bar: int
    queue: int
    largest_size: Decimal
    largest_total: Decimal

    @classmethod
    def fit(cls, levels: Sequence[Level], width: int, *, is_by_order: bool) -> "_Layout":
        columns: list[Column] = ["orders", "total", "size", "price"]
        widths = {
            column: max(len(column), *(len(_cell(level, column)) for level in levels), 0)
            for column in columns
        }
        left_out: list[Column] = ["total", "orders"]
        detail = _rest(widths, width)
        while detail < MIN_DETAIL and left_out:
            del widths[left_out.pop(0)]
            detail = _rest(widths, width)
        detail = max(0, detail)
        first, second = detail, 0
        if detail >= 2 * SECOND_DETAIL + len(GAP):
            first = (detail - len(GAP)) // 2
            second = detail - len(GAP) - first
        return cls(
            widths=widths,
            size_bar=0 if is_by_order and not second else first,
            total_bar=0 if is_by_order else second,
            queue=(second or first) if is_by_order else 0,
            largest_size=max((level.quantity for level in levels), default=Decimal(0)),
            largest_total=max((level.total_quantity for level in levels), default=Decimal(0)),
        )

    def titles(self) -> Text:
        names = [column.rjust(width) for column, width in self.widths.items()]
        names += ["size".ljust(self.size_bar)] if self.total_bar or (self.queue and self.size_bar) else []
        names += ["total"] if self.total_bar else []
        names += ["queue"] if self.queue else []
        return Text(" " + GAP.join(names), style="dim")

    def row(self, view: MarketView, side: Side, level: Level, now: float) -> Text:
        style = SIDE_STYLE[side]
        change = view.recent_change(level.price, now)
        styles: dict[Column, str] = {
            "orders": "dim",
            "total": "dim",
            "size": FLASH_STYLE[change] if change else "",
            "price": f"bold {style}",
        }
        row = Text(" ", style="" if isinstance(view.connection, Live) else "dim")
        for column, width in self.widths.items():
            cell = _cell(level, column)
            row.append(" " * (width - len(cell))).append(cell, styles[column]).append(GAP)
        if self.size_bar:
            row.append(_bar(level.quantity, self.largest_size, self.size_bar), style)
        if self.total_bar:
            row.append(GAP).append(
                _bar(level.total_quantity, self.largest_total, self.total_bar), f"dim {style}"
            )
        if self.queue:
            row.append(GAP if self.size_bar else "").append_text(_queue(level.queue, self.queue, style))
        row.rstrip()
        return row

    def empty(self, side: Side) -> Text:
        return Text(f" no {side.lower()}s", style=f"dim {SIDE_STYLE[side]}")


def _rest(widths: dict[Column, int], width: int) -> int:
    return width - 2 - sum(column + len(GAP) for column in widths.values())


def _cell(level: Level, column: Column) -> str:
    match column:
        case "orders":
            return str(level.order_count)
        case "total":
            return _number(level.total_quantity)
        case "size":
            return _number(level.quantity)
        case "price":
            return _number(level.price)


def _number(value: Decimal) -> str:
    return f"{value:,f}"


def _bar(value: Decimal, largest: Decimal, width: int) -> str:
    """A bar of eighths of a column. What is not zero is seen, however small."""
    eighths = max(1, round(width * 8 * value / largest)) if largest and value else 0
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()).ljust(width)


def _queue(queue: Sequence[Decimal], width: int, style: str) -> Text:
    """The sizes in queue order as far as they fit, then how many more there are. The next to trade is bold."""
    cells = [f"{size.normalize():f}" for size in queue]
    shown = len(cells)
    while shown > 1 and _queue_width(cells, shown) > width:
        shown -= 1
    text = Text()
    for index, cell in enumerate(cells[:shown]):
        text.append(" " if index else "").append(cell, f"bold {style}" if index == 0 else "")
    if shown < len(cells):
        text.append(f" +{len(cells) - shown}", "dim")
    return text


def _queue_width(cells: Sequence[str], shown: int) -> int:
    more = f" +{len(cells) - shown}" if shown < len(cells) else ""
    return sum(len(cell) + 1 for cell in cells[:shown]) - 1 + len(more)


def _title(view: MarketView, now: float, width: int) -> Text:
    subscription = view.subscription
    title = Text(" ").append(subscription.symbol, "bold").append(f"  {subscription.data_type}", "cyan")
    match view.connection:
        case Live():
            state, style = "● live", "green"
        case Connecting():
            state, style = "◌ connecting", "yellow"
        case Waiting(until=until):
            state, style = f"○ disconnected, again in {max(0.0, until - now):.1f} s", "bold red"
    for right in (f"{state}  {view.server} ", f"{state} "):
        space = width - title.cell_len - len(right)
        if space >= len(GAP):
            break
    return title.append(" " * max(len(GAP), space)).append(right, style)


def _statistics(view: MarketView, now: float, width: int) -> Text:
    """The stream in numbers, the most important first, as many as fit."""
    line = Text(" ")
    for text, style in _statistics_parts(view, now):
        gap = "   " if len(line) > 1 else ""
        if line.cell_len + len(gap) + len(text) > width:
            break
        line.append(gap).append(text, style)
    return line


def _statistics_parts(view: MarketView, now: float) -> Iterator[tuple[str, str]]:
    if view.frame is None:
        return
    yield f"seq {view.frame.sequence:,}", ""
    age_s = view.age_s(now)
    if age_s is not None:
        yield f"age {age_s:.1f} s", "bold red" if age_s > STALE_S else "yellow" if age_s > LATE_S else ""
    rates = view.rates(now)
    if rates is not None:
        yield f"{rates[0]:.1f} frames/s", ""
        yield f"{rates[1]:,.0f} changes/s", ""
    if view.latency_s is not None:
        yield f"latency {view.latency_s * 1000:.1f} ms", ""
    else:
        yield f"market time {view.frame.timestamp[:19].replace('T', ' ')}", ""


def _spread(view: MarketView, width: int) -> Text:
    """The line between the sides; in a narrow terminal the spread stays longest."""
    spread, mid, ticks = view.spread, view.mid, view.spread_ticks()
    if spread is None or mid is None:
        return Text(" no spread ".center(width, "─"), style="bold")
    text = f"spread {_number(spread)}"
    in_ticks = "" if ticks is None else f" ({ticks} tick{'' if ticks == 1 else 's'})"
    for more in (in_ticks, f"   mid {_number(mid)}"):
        if len(text) + len(more) + 2 <= width:
            text += more
    return Text(f" {text} ".center(width, "─"), style="bold")


def _waiting(view: MarketView) -> Text:
    subscription = view.subscription
    return Text(f" waiting for the first book of {subscription.symbol} …", style="dim")


def _foot(view: MarketView, rows: int) -> Text:
    if isinstance(view.connection, Waiting):
        return Text(f" {view.connection.reason}", style="red")
    if view.notice is not None:
        return Text(f" {view.notice}", style="red")
    if view.replay is not None:
        return _replay(view.replay, view.replay_notice)
    return Text(f" q quit   {rows} of {view.subscription.max_levels} levels a side", style="dim")


def _replay(replay: ReplayStatus, notice: str | None) -> Text:
    """Where a replay stands, and which keys control it."""
    sign, style = REPLAY_SIGNS[replay.state]
    line = Text(f" {sign} ", style).append(timestamp_text(replay.position_ns)[:21].replace("T", " "), "bold")
    pace = f"{replay.rate:,g} records/s" if replay.rate is not None else f"×{_speed(replay.speed)}"
    line.append(f"   {pace}   {replay.percent:.1f} %")
    if notice is not None:
        return line.append(f"   {notice}", "red")
    return line.append(f"   {HELP}", "dim")


def _speed(speed: float | str | None) -> str:
    return f"{speed:g}" if isinstance(speed, float) else "max"
