"""A program of a user of Databento's own Python client: subscribes, and writes what it receives to a DBN file.

databento_client.py PORT KEY FILE [--ts-out]      the symbols that it was told go to standard output, as JSON
"""

import json
import sys

import databento


def main(port: str, key: str, path: str, *options: str) -> None:
    """Receive until the gateway closes."""
    client = databento.Live(key=key, gateway="127.0.0.1", port=int(port), ts_out="--ts-out" in options)
    client.subscribe(dataset="TEST.MBO", schema="mbo", symbols="ALL_SYMBOLS")
    client.add_stream(path)
    client.start()
    client.block_for_close(timeout=30)
    print(json.dumps(client.symbology_map))


if __name__ == "__main__":
    main(*sys.argv[1:])
