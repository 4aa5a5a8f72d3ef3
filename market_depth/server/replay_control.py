"""Replays under control over HTTP: `/api/control/replay/…`.

`POST start pause resume step seek speed stop` tell a replay what to do and answer with where it then stands, as
`GET status` does. Where several files are served, `file` names one. There is no other way to name a file: what is not
served from the command line cannot be reached.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeVar

import trio
from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from market_depth.feeds.pacing import ConstantRate, FullSpeed, PacingError, RecordedPace, choose_pacing
from market_depth.feeds.replay import Playing, ReplayState, ReplayStateError
from market_depth.server.instant import Instant
from market_depth.server.json_body import described, read_json
from protocol.timestamp import timestamp_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from market_depth.feeds.pacing import Pacing
    from market_depth.feeds.replay import ReplayFeed

PATH = "/api/control/replay"

CONTROL_TIMEOUT_S = 30.0
"""How long a replay may take to do what it is told; a seek reads the file."""

MAX_STEPS = 1_000_000


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


class ReplayStatus(BaseModel):
    """What a replay is doing, and how far it has come."""

    file: str
    symbols: list[str]
    state: ReplayState
    position: str
    position_ns: int
    speed: float | Literal["max"] | None
    rate: float | None
    loop: bool
    start: str | None
    end: str | None
    records: int
    percent: float
    error: str | None


Told = TypeVar("Told", bound=Choice)


class ReplayControl:
    """The replays of one server."""

    def __init__(self, replays: Sequence[ReplayFeed]) -> None:
        self._replays = replays

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix=PATH, tags=["replay"])
        router.add_api_route("/status", self._status, summary="Where it stands")
        self._add(router, "start", Start, self._start, "Play; a replay that plays goes on as it is")
        self._add(router, "pause", Choice, self._pause, "Stand still")
        self._add(router, "resume", Choice, self._resume, "Go on")
        self._add(router, "step", Steps, self._step, "Play so many events, then stand still")
        self._add(router, "seek", Target, self._seek, "Go to an instant")
        self._add(router, "speed", NewPace, self._set_pace, "Go on at another pace")
        self._add(router, "stop", Choice, self._stop, "Play no more, and begin anew with start")
        return router

    def _add(
        self,
        router: APIRouter,
        name: str,
        model: type[Told],
        control: Callable[[ReplayFeed, Told], Awaitable[None]],
        summary: str,
    ) -> None:
        async def answer(request: Request) -> ReplayStatus:
            told = await read_json(request, model)
            replay = self._find(told.file)
            with trio.move_on_after(CONTROL_TIMEOUT_S):
                try:
                    await control(replay, told)
                except ReplayStateError as error:
                    raise HTTPException(HTTPStatus.CONFLICT, str(error)) from error
                except PacingError as error:
                    problem = f"{error.problem}; {error.remedy}"
                    raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, problem) from error
                return status_of(replay)
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"no answer within {CONTROL_TIMEOUT_S:g} s")

        answer.__name__ = name
        router.add_api_route(
            f"/{name}", answer, methods=["POST"], summary=summary, openapi_extra=described(model)
        )

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

    async def _status(self, file: str | None = None, symbol: str | None = None) -> ReplayStatus:
        return status_of(self._find(file, symbol))

    def _find(self, file: str | None, symbol: str | None = None) -> ReplayFeed:
        """The replay of a `file` or of a `symbol`; without a wish, the only one there is."""
        if not self._replays:
            raise HTTPException(HTTPStatus.NOT_FOUND, "this server replays no file")
        found = [replay for replay in self._replays if _is_wanted(replay, file, symbol)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(replay.name for replay in found or self._replays)
        if found:
            raise HTTPException(HTTPStatus.CONFLICT, f"several files are replayed, give one as file: {names}")
        raise HTTPException(HTTPStatus.NOT_FOUND, f"not replayed here; replayed are: {names}")


def status_of(replay: ReplayFeed) -> ReplayStatus:
    """What a replay is doing, and how far it has come."""
    progress = replay.progress()
    playing = progress.playing
    speed: float | Literal["max"] | None = None
    rate: float | None = None
    match playing.pacing:
        case RecordedPace():
            speed = float(playing.pacing.speed)
        case ConstantRate():
            rate = float(playing.pacing.rate)
        case FullSpeed():
            speed = "max"
    return ReplayStatus(
        file=replay.name,
        symbols=[instrument.symbol for instrument in replay.instruments],
        state=progress.state,
        position=timestamp_text(progress.position_ns),
        position_ns=progress.position_ns,
        speed=speed,
        rate=rate,
        loop=playing.loops,
        start=None if playing.start_ns is None else timestamp_text(playing.start_ns),
        end=None if playing.end_ns is None else timestamp_text(playing.end_ns),
        records=progress.records,
        percent=round(100 * progress.share, 3),
        error=progress.error,
    )


def _is_wanted(replay: ReplayFeed, file: str | None, symbol: str | None) -> bool:
    symbols = {instrument.symbol for instrument in replay.instruments}
    return (file is None or file == replay.name) and (symbol is None or symbol in symbols)
