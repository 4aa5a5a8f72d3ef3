"""Order books rebuilt from order events by a compiled engine, and views of their top.

Import `market_depth.book.engine` and `market_depth.book.views` themselves: they load numba, and this does not.
"""
