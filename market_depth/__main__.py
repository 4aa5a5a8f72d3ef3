"""Where the `market-depth` command begins; `python -m market_depth` is the same."""

import sys

INTERRUPTED = 130  # as `market_depth.exits` has it, which takes longer to load than a finger on Ctrl-C


def main() -> None:
    """Load and run the command line. Whoever interrupts the loading gets no traceback."""
    try:
        from market_depth.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
