"""The library picows, a send for each message and client, as a program: MESSAGES_FILE INTERVAL_MS."""

import asyncio

from picows import WSListener, WSMsgType, WSTransport, ws_create_server

from market_depth.bench.broadcasts.rounds import announce, rounds

BACKLOG = 4096


class Client(WSListener):  # type: ignore[misc]  # typed only where picows is installed
    """Puts its connection among the others while it is open."""

    def __init__(self, clients: set[WSTransport]) -> None:
        self._clients = clients

    def on_ws_connected(self, transport: WSTransport) -> None:
        """After the handshake."""
        self._clients.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """When the connection is gone."""
        self._clients.discard(transport)


async def main() -> None:
    """Send every client every message of each round."""
    clients: set[WSTransport] = set()
    server = await ws_create_server(lambda _request: Client(clients), "127.0.0.1", 0, backlog=BACKLOG)
    async with server:
        announce(server.sockets[0].getsockname()[1])
        async for messages in rounds():
            for message in messages:
                for client in clients:
                    client.send(WSMsgType.TEXT, message)


if __name__ == "__main__":
    asyncio.run(main())
