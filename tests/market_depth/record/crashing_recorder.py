"""Records, never closes the file, and tells on standard output how many order events are written and synced: to be killed.

The argument is the file.
"""

import os
import signal
import sys
from pathlib import Path

from market_depth.record.dbn_writer import DbnWriter
from tests.market_depth.feeds.dbn_files import adds
from tests.market_depth.record.recordings import ACME, START_NS

SYNC_RECORDS = 1_000
BATCH = 70
COUNT = 200_000
PROGRESS_BYTES = 36_000
"""So much it tells at least."""

EVENTS = adds(COUNT)

if __name__ == "__main__":
    recording = DbnWriter(Path(sys.argv[1]), [ACME], START_NS, sync_records=SYNC_RECORDS, overwrite=True)
    for at in range(0, COUNT, BATCH):
        recording.write(EVENTS[at : at + BATCH])
        os.write(1, f"{recording.records} {recording.synced_records}\n".encode())
    signal.pause()
