"""When the records of a replay are due, while its pace changes, its clock stops, and it is set elsewhere.

    stopped ◄──► running        `stop`, `run`

Pure arithmetic, in integers. Everything is computed from the *anchor*: the moment, the record and the recorded time
from which the present pace holds. A stop moves the anchor's moment by exactly as long as it lasted, and between
changes nothing is added up, so that no error can.
"""

from market_depth.feeds.pacing import LAST_NS, ConstantRate, Pacing, RecordedPace, Times


class Schedule:
    """Moments are ns of any clock that never goes back; records count from the first that was handed over (1)."""

    def __init__(self, pacing: Pacing) -> None:
        """Stopped, before the first record."""
        self.pacing = pacing
        self._anchor_ns: int | None = None  # the moment of the anchor; None while stopped
        self._elapsed_ns = 0  # from the anchor to the stop
        self._number = 0  # records before the anchor
        self._time = 0  # recorded time at the anchor

    def run(self, now_ns: int) -> None:
        """Let time go on. While it does, nothing changes."""
        if self._anchor_ns is None:
            self._anchor_ns = now_ns - self._elapsed_ns

    def stop(self, now_ns: int) -> None:
        """Let time stand still. While it does, nothing changes."""
        self._elapsed_ns = self.elapsed_ns(now_ns)
        self._anchor_ns = None

    def set_pacing(self, pacing: Pacing, now_ns: int, delivered: int, time: int) -> None:
        """Go on at another pace, after `delivered` records, the last of them recorded at `time`.

        From one speed to another, and from one rate to another, what was due stays due, and what has passed of the
        wait for the next record has passed.
        """
        elapsed_ns = self.elapsed_ns(now_ns)
        waited_ns = 0
        match self.pacing, pacing:
            case RecordedPace() as before, RecordedPace():
                time = self._time + before.reached(elapsed_ns)
            case ConstantRate() as before, ConstantRate():
                due = before.records(elapsed_ns)
                waited_ns = elapsed_ns - before.due_at(due, 0)
                delivered = self._number + due
        self.pacing = pacing
        self.go_to(now_ns - waited_ns, delivered, time)
        if self._anchor_ns is None:
            self._elapsed_ns = waited_ns

    def go_to(self, now_ns: int, delivered: int, time: int) -> None:
        """Stand at the recorded time `time`, after `delivered` records, from now on."""
        if self._anchor_ns is not None:
            self._anchor_ns = now_ns
        self._elapsed_ns = 0
        self._number = delivered
        self._time = min(time, LAST_NS)

    def due(self, now_ns: int, delivered: int, times: Times) -> int:
        """How many of the next records, recorded at `times`, are due now that `delivered` have gone before."""
        return self.pacing.due(self.elapsed_ns(now_ns), delivered - self._number, times - self._time)

    def due_at(self, number: int, time: int) -> int:
        """The moment at which record `number`, recorded at `time`, is due, if time goes on until then."""
        assert self._anchor_ns is not None, "while time stands still nothing becomes due"
        return self._anchor_ns + self.pacing.due_at(number - self._number, time - self._time)

    def reached(self, now_ns: int) -> int:
        """The recorded time that is played now; at a rate or at full speed, that of the anchor."""
        if isinstance(self.pacing, RecordedPace):
            return min(self._time + self.pacing.reached(self.elapsed_ns(now_ns)), LAST_NS)
        return self._time

    def elapsed_ns(self, now_ns: int) -> int:
        """How long the present pace has held, without stops."""
        return self._elapsed_ns if self._anchor_ns is None else now_ns - self._anchor_ns
