"""Order books rebuilt from order events by a compiled engine, and views of their top."""
