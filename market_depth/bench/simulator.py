"""Whether the simulated markets are believable: long runs of every scenario from several seeds, against the targets.

Each run is a process of its own, as many at a time as there are processors. The digests of the runs are then made once
more in this process, so that equal ones also say that the flow does not depend on the process.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from market_depth.bench.errors import BenchOptionError
from simulator.errors import UnknownScenarioError
from simulator.listings import listing
from simulator.realism import judge
from simulator.sample import START_NS, SYMBOL, sample
from simulator.scenarios import SCENARIOS, scenario
from simulator.venue import Venue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulator import realism

LEAST_EVENTS = 400_000
"""Of one run: shorter ones cannot tell correlations over 300 trades or five minutes from chance."""

MAX_EVENTS = 1_000_000_000
MAX_SEEDS = 100

SPEED_RECORDS = 300_000


@dataclass(frozen=True)
class Report:
    """What every scenario's runs showed, and how fast one venue makes events."""

    scenarios: list[realism.Report]
    events_per_s: float
    records_per_s: float

    @property
    def ok(self) -> bool:
        """Whether every scenario meets all of its targets."""
        return all(report.ok for report in self.scenarios)

    def as_dict(self) -> dict[str, Any]:
        """Every property of every scenario, and the speed."""
        return {
            "ok": self.ok,
            "events_per_s": self.events_per_s,
            "records_per_s": self.records_per_s,
            "scenarios": [{**asdict(report), "ok": report.ok} for report in self.scenarios],
        }

    def lines(self) -> list[str]:
        """A table for each scenario, one line a property: number, verdict, property, target, value."""
        lines: list[str] = []
        for report in self.scenarios:
            lines.append(f"{report.scenario}: {report.events:,} events over {len(report.seeds)} seeds")
            for row in report.rows:
                verdict = "ok" if row.ok else "MISSED"
                lines.append(
                    f"{row.number:>4}  {verdict:<6}  {row.metric:<43}  {row.target:<18}  {row.value}"
                )
            lines.append("")
        lines.append(
            f"one venue, one process: {self.events_per_s:,.0f} events/s, {self.records_per_s:,.0f} records/s"
        )
        return lines


def run(
    events: int = 10_000_000,
    seeds: int = 5,
    scenarios: Sequence[str] = tuple(SCENARIOS),
    progress: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Run `events` events of each scenario, an equal part of them from each of the seeds 1, 2, …, and judge them.

    Ten million events take about a minute of two processors. `progress` is told what happens.
    Raises: BenchOptionError when a value is out of bounds or a scenario is unknown.
    """
    if not 1 <= seeds <= MAX_SEEDS:
        raise BenchOptionError(f"seeds must be from 1 to {MAX_SEEDS}, not {seeds}")
    if not LEAST_EVENTS * seeds <= events <= MAX_EVENTS:
        raise BenchOptionError(
            f"events must be from {LEAST_EVENTS * seeds:,} for {seeds} seeds to {MAX_EVENTS:,}, not {events:,}"
        )
    try:
        chosen = [scenario(name) for name in scenarios]
    except UnknownScenarioError as error:
        raise BenchOptionError(str(error)) from error
    reports = []
    # Spawned, not forked: a thread of the caller's, such as a progress bar's, must not be cut off while it holds a lock.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(seeds, os.cpu_count() or 1), spawn) as processes:
        for entry in chosen:
            progress(f"{entry.name}: {events:,} events over {seeds} seeds")
            runs = [processes.submit(sample, entry, seed, events // seeds) for seed in range(1, seeds + 1)]
            reports.append(judge(entry, [future.result() for future in runs]))
    progress("speed")
    return Report(reports, *_speed())


def _speed() -> tuple[float, float]:
    """Events and records that one venue makes in a second of CPU time."""
    venue = Venue(listing(SYMBOL), scenario("busy"), 1, START_NS)
    first = int(venue.run(1)["sequence"][-1])
    began_s = time.process_time()
    records = venue.run(SPEED_RECORDS)
    elapsed_s = time.process_time() - began_s
    return (int(records["sequence"][-1]) - first) / elapsed_s, len(records) / elapsed_s
