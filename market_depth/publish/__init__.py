"""A recorded file served as a live gateway would: DBN over TCP, with Databento's handshake."""

__all__: list[str] = []
