"""Options that a flag, the environment or a TOML file may give, and a help that shows them in groups."""

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from market_depth.exits import WRONG_CALL, fail

EPILOG = (
    "Each option can also be given in the environment (--addr as MARKET_DEPTH_ADDR, and so on) or in the TOML file that "
    "--config names; flags win over the environment, the environment wins over the file. Several values of one "
    "option stand in the environment with a blank between, files with a colon."
)


def setting(flag: str, explanation: str, *, group: str = "Options", **details: Any) -> Any:
    """An option that the environment and a settings file may give, too; `group` is its heading in the help."""
    variable = "MARKET_DEPTH_" + flag.removeprefix("--").replace("-", "_").upper()
    return typer.Option(
        flag, envvar=variable, show_envvar=False, help=explanation, rich_help_panel=group, **details
    )


class SettingsCommand(TyperCommand):
    """A command whose plain help has a heading for each group of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[Any]] = {}
        for option in self.get_params(ctx):
            own = "Arguments" if option.param_type_name == "argument" else "Options"
            group = getattr(option, "rich_help_panel", None) or own
            groups.setdefault(group, []).append(option.get_help_record(ctx))
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def load_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Take the defaults of all options from a TOML file; flags and environment win over it."""
    if path is None:
        return None
    import tomllib

    try:
        settings = tomllib.loads(path.read_text())
    except OSError as error:
        fail(f"{path}: {error.strerror}", WRONG_CALL)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{path}: {error}", WRONG_CALL)
    options = {
        parameter.name: parameter for parameter in context.command.params if parameter.name != "_config"
    }
    defaults: dict[str, Any] = {}
    for key, value in settings.items():
        name = key.replace("-", "_")
        if name not in options:
            fail(f"{path}: unknown setting {key!r}", WRONG_CALL)
        # A list and its short form mean the same: `symbols = ["A", "B"]` is "A,B", `replay = "F"` is ["F"].
        if options[name].multiple and isinstance(value, str):
            defaults[name] = [value]
        elif isinstance(value, list) and not options[name].multiple:
            defaults[name] = ",".join(map(str, value))
        else:
            defaults[name] = value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path
