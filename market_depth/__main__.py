"""`python -m market_depth` is the `market-depth` command."""

from market_depth.cli import main

main()
