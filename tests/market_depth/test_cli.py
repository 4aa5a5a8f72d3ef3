from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from market_depth import app as application
from market_depth.cli import main
from market_depth.config import Address, ServeConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Call(NamedTuple):
    """How a call of the command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def message(self) -> str:
        """The one line that says what was wrong."""
        [line] = self.stderr.splitlines()
        assert line.startswith("market-depth: ")
        return line


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_logging: None
) -> Callable[..., Call]:
    """Runs the command in this process, in an environment that sets nothing."""
    for name in [*ServeConfig.model_fields, "addr", "config", "log_level"]:
        monkeypatch.delenv(f"MARKET_DEPTH_{name.upper()}", raising=False)

    def call(*arguments: str, **environment: str) -> Call:
        with monkeypatch.context() as changed:
            changed.setattr("sys.argv", ["market-depth", *arguments])
            for name, value in environment.items():
                changed.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        output = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Call(code, output.out, output.err)

    return call


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeConfig]:
    """The configurations that `serve` was called with; it returns at once."""
    configs: list[ServeConfig] = []

    async def serve(config: ServeConfig, _: object) -> None:
        configs.append(config)

    monkeypatch.setattr(application, "serve", serve)
    return configs


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--addr", "nope"], "'nope' is not an address"),
        (["--addr", "a..b:80"], "'a..b:80' is not an address"),
        (["--addr", "127.0.0.1:99999"], "'127.0.0.1:99999' is not an address"),
        (["--scenario", "nope"], "no scenario 'nope'; choose one of calm, busy, trend, burst"),
        (["--symbols", "BTCUSD,BTCUSD"], "--symbols: 'BTCUSD' is listed more than once"),
        (["--symbols", ""], "symbol '' is malformed"),
        (["--symbols", "b t"], "symbol 'b t' is malformed"),
        (["--replay", "a.dbn", "--speed", "-1"], "a speed of -1 is not possible; give a factor"),
        (["--replay", "a.dbn", "--speed", "fast"], "a speed of fast is not possible"),
        (["--interval-ms", "9"], "--interval-ms: 9: input should be greater than or equal to 10"),
        (["--interval-ms", "60001"], "--interval-ms: "),
        (["--interval-ms", "soon"], "'--interval-ms': "),
        (["--seed", "-1"], "--seed: "),
        (["--replay", "a.dbn", "--rate", "0"], "a rate of 0"),
        (["--replay", "a.dbn", "--limit", "0"], "--limit: "),
        (["--replay", "a.dbn", "--rate", "1", "--speed", "1"], "--speed and --rate exclude each other"),
        (["--speed", "1"], "--speed is about a replay: name its file with --replay"),
        (["--rate", "1"], "--rate is about a replay"),
        (["--loop"], "--loop is about a replay"),
        (["--limit", "1", "--feed", "tcp://127.0.0.1:1"], "--limit is about a replay"),
        (
            ["--allow-origin", "evil.example"],
            "'evil.example' is not an origin: SCHEME://HOST[:PORT] is expected",
        ),
        (["--token", ""], "--token: a token has 1 to 512 letters, digits and signs of ASCII, and no blanks"),
        (["--tls-cert", "cert.pem"], "--tls-cert and --tls-key go together"),
        (["--tls-key", "key.pem"], "--tls-cert and --tls-key go together"),
        (["--store", "mysql://a"], "--store: 'mysql' is not a store: duckdb: (a file of the data directory)"),
        (
            ["--sample", "events"],
            "--sample: 'events' is not a sampling: change, events:N or ms:T is expected",
        ),
        (["--sample", "ms:0"], "--sample: a sampling takes every 1 to 1000000000, not 0"),
        (["--retain-days", "0"], "--retain-days: 0.0: input should be greater than 0"),
        (["--retain-bytes", "1"], "--retain-bytes: "),
        (["--max-connections", "0"], "--max-connections: 0: input should be greater than or equal to 1"),
        (["--messages-per-second", "nan"], "--messages-per-second: "),
        (["--events-per-second", "nan"], "nan events a second are not possible"),
        (["--log-level", "loud"], "'--log-level': "),
        (["--config", "missing.toml"], "missing.toml: "),
        (["--nope"], "No such option: --nope"),
        (["more"], "unexpected extra argument"),
    ],
)
def test_a_wrong_call_is_code_2_and_a_clear_line(
    arguments: list[str], expected: str, run: Callable[..., Call]
) -> None:
    call = run("serve", *arguments)
    assert (call.exit_code, call.stdout) == (2, "")
    assert expected in call.message


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "depth.example.org:80"])
def test_an_address_that_others_reach_needs_a_token_or_the_word_that_it_needs_none(
    address: str, run: Callable[..., Call], served: list[ServeConfig]
) -> None:
    call = run("serve", "--addr", address)
    assert (call.exit_code, call.stdout, served) == (2, "", [])
    assert f"{address} can be reached from other machines" in call.message
    assert "--token" in call.message
    assert "--insecure" in call.message
    assert run("serve", "--addr", address, "--token", "a").exit_code == 0
    assert run("serve", "--addr", address, MARKET_DEPTH_TOKEN="b").exit_code == 0
    assert run("serve", "--addr", address, "--insecure").exit_code == 0
    assert [config.token for config in served] == ["a", "b", None]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.3.2.1:0", "[::1]:0", "localhost:0"])
def test_an_address_of_this_machine_needs_no_token(
    address: str, run: Callable[..., Call], served: list[ServeConfig]
) -> None:
    assert run("serve", "--addr", address).exit_code == 0
    assert len(served) == 1


@pytest.mark.parametrize("token", ["two words", "tökén", "x" * 513])
def test_a_wrong_token_is_not_repeated(token: str, run: Callable[..., Call], tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f'token = "{token}"')
    for call in (
        run("serve", "--token", token),
        run("serve", MARKET_DEPTH_TOKEN=token),
        run("serve", "--config", str(path)),
    ):
        assert call.exit_code == 2
        assert token not in call.message


def test_limits_and_access_can_be_set_by_flag_environment_and_file(
    run: Callable[..., Call], served: list[ServeConfig], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "token": "secret",
        "insecure": True,
        "allow_origin": ["https://a.example", "null"],
        "tls_cert": "cert.pem",
        "tls_key": "key.pem",
        "max_connections": 7,
        "max_connections_per_host": 3,
        "handshake_timeout_s": 1.5,
        "heartbeat_interval_s": 5,
        "max_unanswered_pings": 2,
        "max_message_bytes": 2048,
        "max_streams": 2,
        "messages_per_second": 0.5,
        "message_burst": 4,
        "compression": True,
    }
    path = tmp_path / "settings.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    flags = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        values = value if isinstance(value, list) else [value]
        flags += [flag] if value is True else [part for text in values for part in (flag, str(text))]
    environment = {
        f"MARKET_DEPTH_{name.upper()}": " ".join(value) if isinstance(value, list) else str(value)
        for name, value in settings.items()
    }
    for call in (run("serve", *flags), run("serve", **environment), run("serve", "--config", str(path))):
        assert (call.exit_code, call.stderr) == (0, "")
    expected = ServeConfig.model_validate(settings)
    assert expected.model_dump() != ServeConfig().model_dump()
    assert served == [expected] * 3


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"nope = 1", "unknown setting 'nope'"),
        (b"[serve]\nseed = 1", "unknown setting 'serve'"),
        (b"config = 'other.toml'", "unknown setting 'config'"),
        (b"= 1", "Invalid statement"),
        (b"\xff\xfe", "utf-8"),
        (b"seed = 1.5", "'--seed': "),
        (b"interval_ms = 5", "--interval-ms: "),
        (b"addr = 5", "'5' is not an address"),
    ],
)
def test_a_wrong_file_of_settings_is_code_2_and_a_clear_line(
    content: bytes, expected: str, run: Callable[..., Call], tmp_path: Path
) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    call = run("serve", "--config", str(path))
    assert (call.exit_code, call.stdout) == (2, "")
    assert expected in call.message


def test_flags_win_over_the_environment_over_the_file_over_defaults(
    run: Callable[..., Call], served: list[ServeConfig], tmp_path: Path
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('seed = 1\ninterval-ms = 111\nsymbols = "ADAUSD"\nspeed = 2\nreplay = "a.dbn"\n')
    options = ["serve", "--config", str(path)]
    environment = {"MARKET_DEPTH_SEED": "2", "MARKET_DEPTH_INTERVAL_MS": "222"}
    assert run(*options, "--seed", "3", **environment).exit_code == 0
    [config] = served
    assert (config.seed, config.interval_ms, config.symbols) == (3, 222, ("ADAUSD",))
    assert (config.speed, config.address, config.scenario) == ("2", Address("127.0.0.1", 8080), "busy")


@pytest.mark.parametrize("setting", ['symbols = "A,B"', 'symbols = ["A", "B"]'])
def test_the_file_may_write_a_list_of_symbols_either_way(
    setting: str, run: Callable[..., Call], served: list[ServeConfig], tmp_path: Path
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f'{setting}\nreplay = "only.dbn"\n')
    assert run("serve", "--config", str(path)).exit_code == 0
    [config] = served
    assert (config.symbols, [file.name for file in config.replay]) == (("A", "B"), ["only.dbn"])


def test_the_environment_can_name_the_file(
    run: Callable[..., Call], served: list[ServeConfig], tmp_path: Path
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('replay = ["a.dbn", "b.dbn"]\nloop = true\n')
    assert run("serve", MARKET_DEPTH_CONFIG=str(path)).exit_code == 0
    [config] = served
    assert ([file.name for file in config.replay], config.loop) == (["a.dbn", "b.dbn"], True)


def test_without_options_the_defaults_of_the_configuration_hold(
    run: Callable[..., Call], served: list[ServeConfig]
) -> None:
    assert run("serve").exit_code == 0
    assert served == [ServeConfig()]


def test_repeatable_and_listed_options_are_collected(
    run: Callable[..., Call], served: list[ServeConfig]
) -> None:
    run(
        "serve", "--replay", "a.dbn", "--replay", "b.dbn.zst", "--symbols", "BTCUSD, ETHUSD", "--speed", "max"
    )
    [config] = served
    assert [file.name for file in config.replay] == ["a.dbn", "b.dbn.zst"]
    assert (config.symbols, config.speed) == (("BTCUSD", "ETHUSD"), "max")


def test_a_port_in_use_is_code_1_and_one_line(run: Callable[..., Call]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        call = run("serve", "--addr", address)
    assert (call.exit_code, call.stdout) == (1, "")
    assert call.stderr == f"market-depth: cannot listen on {address}: Address already in use\n"


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "no such file"), (b"hello", "is not a DBN file"), (b"DBN", "breaks off")]
)
def test_a_file_that_cannot_be_replayed_is_code_1_and_one_line(
    content: bytes | None, problem: str, run: Callable[..., Call], tmp_path: Path
) -> None:
    path = tmp_path / "recording.dbn"
    if content is not None:
        path.write_bytes(content)
    call = run("serve", "--addr", "127.0.0.1:0", "--replay", str(path))
    assert (call.exit_code, call.stdout) == (1, "")
    assert call.stderr.startswith("market-depth: ")
    assert f"recording.dbn: {problem}" in call.stderr
    assert call.stderr.count("\n") == 1


def test_a_symbol_in_two_feeds_is_code_2(run: Callable[..., Call], monkeypatch: pytest.MonkeyPatch) -> None:
    from market_depth.feeds import replay, simulated

    monkeypatch.setattr(replay.ReplayFeed, "open", open_same_symbol(simulated.SimulatedFeed))
    call = run("serve", "--addr", "127.0.0.1:0", "--symbols", "BTCUSD", "--replay", "a.dbn")
    assert call.exit_code == 2
    assert "BTCUSD is in both simulator and simulator: serve one of them" in call.message


def open_same_symbol(feed: Callable[..., object]) -> Callable[..., object]:
    async def open_feed(*_: object, **__: object) -> object:
        from market_depth.clock import SystemClock

        return feed(["BTCUSD"], "busy", 0, None, SystemClock())

    return open_feed


def test_version_is_that_of_the_distribution(run: Callable[..., Call]) -> None:
    from importlib.metadata import version

    assert run("--version") == (0, f"market-depth {version('market-depth')}\n", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", [[], ["serve"], ["watch"]])
def test_help_is_there_for_each_command(command: list[str], option: str, run: Callable[..., Call]) -> None:
    call = run(*command, option)
    assert (call.exit_code, call.stderr) == (0, "")
    assert call.stdout.startswith("Usage: ")


def test_help_of_serve_has_a_heading_for_each_group(run: Callable[..., Call]) -> None:
    text = run("serve", "--help").stdout
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Options:",
        "Simulation:",
        "Replay:",
        "Live feeds and recording:",
        "Store:",
        "Access:",
        "Limits:",
    ]


def test_help_of_serve_names_every_setting(run: Callable[..., Call]) -> None:
    text = run("serve", "--help").stdout
    for field in ServeConfig.model_fields:
        assert f"--{'addr' if field == 'address' else field.replace('_', '-')} " in text
