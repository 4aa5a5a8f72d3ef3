import socket

import pytest
import trio

from market_depth.bench.hostile import HANDSHAKE, SLOW_PAUSE_S, Attack, Exit, attack_of, strike, strike_all


def test_a_seed_makes_the_same_client_again() -> None:
    assert [vars(attack_of(seed)) for seed in range(300)] == [vars(attack_of(seed)) for seed in range(300)]


def test_seeds_make_clients_of_many_kinds() -> None:
    attacks = [attack_of(seed) for seed in range(2000)]
    assert {attack.exit for attack in attacks} == set(Exit)
    assert len({attack.said for attack in attacks}) > 500
    assert any(attack.is_slow for attack in attacks)
    assert max(len(attack.said) for attack in attacks) > 100_000
    assert sum(attack.said.startswith(HANDSHAKE) for attack in attacks) > 500
    assert sum(b"HTTP/1.0" in attack.said for attack in attacks) > 50


async def heard_of(attack: Attack) -> bytes:
    """What a server hears of a hostile client, `+` at the end if it was reset."""
    heard = bytearray()

    async def listen(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                heard.extend(data)
        except trio.BrokenResourceError:
            heard.extend(b"+")

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, listen, [listener])
        host, port = listener.socket.getsockname()
        await strike(host, port, attack)
        while not heard.endswith(b"+" if attack.exit is Exit.RESET else attack.said):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return bytes(heard)


@pytest.mark.parametrize("way", [Exit.FINISHED, Exit.WAITED])
async def test_a_client_says_its_part_and_leaves(way: Exit) -> None:
    assert await heard_of(Attack(b"nonsense", way)) == b"nonsense"


async def test_a_client_may_reset_its_connection() -> None:
    assert (await heard_of(Attack(b"nonsense", Exit.RESET))).endswith(b"+")


async def test_a_slow_client_takes_its_time(autojump_clock: trio.testing.MockClock) -> None:
    started = trio.current_time()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        await strike(host, port, Attack(b"GET /", Exit.RESET, is_slow=True))
    assert trio.current_time() - started >= 5 * SLOW_PAUSE_S


async def test_every_seed_has_its_turn() -> None:
    connections = 0

    async def hang_up(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=200)
        nursery.start_soon(trio.serve_listeners, hang_up, [listener])
        host, port = listener.socket.getsockname()
        await strike_all(host, port, 40, 0.0, seed=1)
        nursery.cancel_scope.cancel()
    assert connections == 40


async def test_a_server_that_is_not_there_ends_the_attack() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    with pytest.raises(ExceptionGroup) as failed:
        await strike_all(host, port, 3, 0.0, seed=1)
    assert failed.group_contains(OSError)
