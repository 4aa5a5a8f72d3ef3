"""`broadcast()` of the library websockets, without compression, as a program: MESSAGES_FILE INTERVAL_MS."""

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve

from market_depth.bench.broadcasts.rounds import announce, rounds

BACKLOG = 4096


async def main() -> None:
    """Send every client every message of each round."""
    clients: set[ServerConnection] = set()

    async def keep(client: ServerConnection) -> None:
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.remove(client)

    async with serve(
        keep, "127.0.0.1", 0, compression=None, backlog=BACKLOG, ping_interval=None, max_queue=None
    ) as server:
        announce(next(iter(server.sockets)).getsockname()[1])
        async for messages in rounds():
            for message in messages:
                broadcast(clients, message.decode())


if __name__ == "__main__":
    asyncio.run(main())
