"""Replays under control over HTTP: `/api/control/replay/…`.

`POST start pause resume step seek speed stop` tell a replay what to do and answer with where it then stands, as
`GET status` does. Where several files are served, `file` names one. There is no other way to name a file: what is not
served from the command line cannot be reached.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from market_depth.feeds.pacing import ConstantRate, FullSpeed, PacingError, RecordedPace, choose_pacing
from market_depth.feeds.replay import Playing, ReplayStateError
from market_depth.server.http import RefusedError, Route, json_page
from protocol.timestamp import NS_PER_MS, timestamp_ns, timestamp_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from market_depth.feeds.pacing import Pacing
    from market_depth.feeds.replay import ReplayFeed
    from market_depth.server.http import Page, Request, Routes

PATH = "/api/control/replay/"

FIRST_NS = 10**15
"""An instant given as a number below it is ms since the epoch, from it on ns: the one ends in the year 33658, the other
begins eleven days after 1970 did."""

MAX_STEPS = 1_000_000


def instant_ns(value: object) -> int:
    """An instant in ns since the epoch, from an RFC 3339 date-time, or from ns or ms since the epoch.

    Raises: ValueError that says what is expected.
    """
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value if value >= FIRST_NS else value * NS_PER_MS
    try:
        return timestamp_ns(str(value))
    except ValueError:
        raise ValueError(
            "an instant is expected: a date-time such as 2025-09-24T20:00:00Z, or ns or ms since the epoch"
        ) from None


Instant = Annotated[int, BeforeValidator(instant_ns)]


class Choice(BaseModel):
    """Which replay; all that pause, resume and stop need to be told."""

    model_config = ConfigDict(extra="forbid")

    file: str | None = None


class Steps(Choice):
    """How far to step."""

    events: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 1


class Target(Choice):
    """Where to seek."""

    to: Instant


class Pace(Choice):
    """At which pace to play: a multiple of the recorded one, or records a second."""

    speed: float | Literal["max"] | None = None
    rate: float | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.speed is not None and self.rate is not None:
            raise ValueError("give speed or rate, not both")
        return self

    def pacing(self) -> Pacing:
        """Raises: PacingError."""
        return choose_pacing(1 if self.speed is None else self.speed, self.rate)


class NewPace(Pace):
    """At which pace to go on."""

    @model_validator(mode="after")
    def _is_given(self) -> Self:
        if self.speed is None and self.rate is None:
            raise ValueError("give speed or rate")
        return self


class Start(Pace):
    """What to play, and how."""

    loop: bool = False
    start: Instant | None = None
    end: Instant | None = None

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("end lies before start")
        return self


Body = TypeVar("Body", bound=Choice)


class ReplayControl:
    """The replays of one server."""

    def __init__(self, replays: Sequence[ReplayFeed]) -> None:
        self._replays = replays

    @property
    def routes(self) -> Routes:
        """What each path answers."""
        routes = {
            "start": self._controlled_by(Start, self._start),
            "pause": self._controlled_by(Choice, self._pause),
            "resume": self._controlled_by(Choice, self._resume),
            "step": self._controlled_by(Steps, self._step),
            "seek": self._controlled_by(Target, self._seek),
            "speed": self._controlled_by(NewPace, self._set_pace),
            "stop": self._controlled_by(Choice, self._stop),
            "status": Route("GET", self._status),
        }
        return {PATH + name: route for name, route in routes.items()}

    async def _start(self, replay: ReplayFeed, start: Start) -> None:
        await replay.start(Playing(start.pacing(), start.loop, start.start, start.end))

    async def _pause(self, replay: ReplayFeed, _: Choice) -> None:
        replay.pause()

    async def _resume(self, replay: ReplayFeed, _: Choice) -> None:
        replay.resume()

    async def _step(self, replay: ReplayFeed, steps: Steps) -> None:
        await replay.step(steps.events)

    async def _seek(self, replay: ReplayFeed, target: Target) -> None:
        await replay.seek(target.to)

    async def _set_pace(self, replay: ReplayFeed, pace: NewPace) -> None:
        replay.set_pacing(pace.pacing())

    async def _stop(self, replay: ReplayFeed, _: Choice) -> None:
        replay.stop()

    async def _status(self, request: Request) -> Page:
        return json_page(status_of(self._find(request.query)))

    def _controlled_by(
        self, model: type[Body], control: Callable[[ReplayFeed, Body], Awaitable[None]]
    ) -> Route:
        async def answer(request: Request) -> Page:
            body = _parse(model, request.body)
            replay = self._find({} if body.file is None else {"file": body.file})
            try:
                await control(replay, body)
            except ReplayStateError as error:
                raise RefusedError(HTTPStatus.CONFLICT, str(error)) from error
            except PacingError as error:
                raise RefusedError(
                    HTTPStatus.UNPROCESSABLE_ENTITY, f"{error.problem}; {error.remedy}"
                ) from error
            return json_page(status_of(replay))

        return Route("POST", answer)

    def _find(self, wanted: Mapping[str, str]) -> ReplayFeed:
        """The replay of a `file` or of a `symbol`; without a wish, the only one there is."""
        if not self._replays:
            raise RefusedError(HTTPStatus.NOT_FOUND, "this server replays no file")
        found = [replay for replay in self._replays if _is_wanted(replay, wanted)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(replay.name for replay in found or self._replays)
        if found:
            raise RefusedError(HTTPStatus.CONFLICT, f"several files are replayed, give one as file: {names}")
        raise RefusedError(HTTPStatus.NOT_FOUND, f"not replayed here; replayed are: {names}")


def status_of(replay: ReplayFeed) -> dict[str, Any]:
    """What a replay is doing, and how far it has come."""
    progress = replay.progress()
    playing = progress.playing
    speed: float | str | None = None
    rate: float | None = None
    match playing.pacing:
        case RecordedPace():
            speed = float(playing.pacing.speed)
        case ConstantRate():
            rate = float(playing.pacing.rate)
        case FullSpeed():
            speed = "max"
    return {
        "file": replay.name,
        "symbols": [instrument.symbol for instrument in replay.instruments],
        "state": progress.state,
        "position": timestamp_text(progress.position_ns),
        "position_ns": progress.position_ns,
        "speed": speed,
        "rate": rate,
        "loop": playing.loops,
        "start": None if playing.start_ns is None else timestamp_text(playing.start_ns),
        "end": None if playing.end_ns is None else timestamp_text(playing.end_ns),
        "records": progress.records,
        "percent": round(100 * progress.share, 3),
        "error": progress.error,
    }


def _is_wanted(replay: ReplayFeed, wanted: Mapping[str, str]) -> bool:
    symbols = {instrument.symbol for instrument in replay.instruments}
    return ("file" not in wanted or wanted["file"] == replay.name) and (
        "symbol" not in wanted or wanted["symbol"] in symbols
    )


def _parse(model: type[Body], body: bytes) -> Body:
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
        field = ".".join(str(part) for part in first["loc"][:1])
        problem = first["msg"].removeprefix("Value error, ")
        raise RefusedError(
            HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {problem}" if field else problem
        ) from error
