"""Which other libraries are installed that send messages to many clients, and the programs that let them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIND_TIMEOUT_S = 10.0

WS_PROGRAM = Path(__file__).parent / "broadcasts" / "with_ws.js"
FIND_WS = "console.log(require.resolve('ws'))"


def installed_peers() -> tuple[dict[str, Sequence[str]], Mapping[str, str]]:
    """The commands of those found, by name, and the environment variables that they need.

    Each takes two more arguments: a file with one message a line, and the interval in ms.
    """
    commands: dict[str, Sequence[str]] = {
        name: [sys.executable, "-m", f"market_depth.bench.broadcasts.with_{name}"]
        for name in ("websockets", "picows")
        if find_spec(name) is not None
    }
    modules = _node_modules_of_ws()
    if modules is None:
        return commands, {}
    return {**commands, "Node ws": ["node", str(WS_PROGRAM)]}, {"NODE_PATH": str(modules)}


def _node_modules_of_ws() -> Path | None:
    """The folder where Node finds ws from the current one, or by NODE_PATH."""
    node = shutil.which("node")
    if node is None:
        return None
    found = subprocess.run(  # noqa: S603 our own question
        [node, "-e", FIND_WS], capture_output=True, text=True, check=False, timeout=FIND_TIMEOUT_S
    )
    if found.returncode:
        return None
    return next(parent for parent in Path(found.stdout.strip()).parents if parent.name == "node_modules")
