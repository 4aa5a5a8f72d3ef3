"""`market-depth publish FILE`: serve a recorded file as a live gateway would."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from market_depth.exits import FAILED, WRONG_CALL, fail
from market_depth.logging import LogLevel, configure

KEY_VARIABLE = "MARKET_DEPTH_PUBLISH_KEY"

MIN_KEY_LENGTH = 16
"""The last five characters go over the wire as they are, and the others could be tried out: Databento's have 32."""

logger = logging.getLogger(__name__)


def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="DBN file of MBO records (.dbn, .dbn.zst).")],
    addr: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; port 0 takes a free one.")
    ] = "127.0.0.1:13000",
    speed: Annotated[
        str | None, typer.Option(metavar="FACTOR", help="A factor of recorded time, or max. By default 1.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="N records a second instead of recorded time.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Start again at the end, instead of closing.")] = False,
    max_clients: Annotated[
        int, typer.Option(metavar="N", min=1, help="Clients that were let in, at a time.")
    ] = 64,
    log_level: Annotated[
        LogLevel, typer.Option(case_sensitive=False, help="How much to tell.")
    ] = LogLevel.INFO,
) -> None:
    """Serve a file's records over TCP (DBN, in Databento's live framing), until Ctrl-C.

    Each client gets the file from its beginning, at the chosen pace. Clients prove that they know the key in
    MARKET_DEPTH_PUBLISH_KEY; without one, only those on this machine are served, with any key. One of them is
    `market-depth serve --feed tcp://HOST:PORT`.
    """
    import trio

    from market_depth.config import parse_address
    from market_depth.feeds.base import FeedError, FeedOptionError
    from market_depth.feeds.pacing import choose_pacing

    configure(log_level)
    key = os.environ.get(KEY_VARIABLE) or None
    if speed is not None and rate is not None:
        fail("--speed and --rate exclude each other", WRONG_CALL)
    try:
        address = parse_address(addr)
        pacing = choose_pacing(1 if speed is None else speed, rate)
    except ValueError as error:
        fail(str(error), WRONG_CALL)
    except FeedOptionError as error:
        fail(f"{error.problem}; {error.remedy}", WRONG_CALL)
    if key is None and not address.is_loopback:
        fail(
            f"{addr} can be reached from elsewhere: set {KEY_VARIABLE} to the key that clients must have",
            WRONG_CALL,
        )
    if key is not None and len(key) < MIN_KEY_LENGTH:
        fail(f"the key in {KEY_VARIABLE} needs {MIN_KEY_LENGTH} characters or more", WRONG_CALL)

    async def run() -> None:
        from market_depth.clock import SystemClock
        from market_depth.publish.publisher import Publisher

        publisher = await Publisher.open(
            file, pacing, SystemClock(), loop=loop, key=key, max_clients=max_clients
        )
        listeners = await trio.open_tcp_listeners(address.port, host=address.host)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publisher.run, listeners)
                bound = listeners[0].socket.getsockname()[1]
                catalog = publisher.catalog
                typer.echo(
                    f"Publishing {catalog.dataset} ({len(catalog.symbols)} instruments) on tcp://{address._replace(port=bound)}"
                )
                sys.stdout.flush()
                number = await anext(aiter(signals))
                logger.info("shutting down signal=%s", signal.Signals(number).name)
                nursery.cancel_scope.cancel()
        logger.info("stopped")

    try:
        trio.run(run)
    except FeedError as error:
        fail(str(error), FAILED)
    except OSError as error:
        fail(f"cannot listen on {addr}: {error.strerror or error}", FAILED)
