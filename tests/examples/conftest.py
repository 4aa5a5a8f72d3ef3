"""What the examples run against and with."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.browser import unavailable

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript example with its dependency installed, in a folder of its own."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable("node", f"{program} is not installed")
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copytree(
        EXAMPLES / "javascript", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules")
    )
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-update-notifier"]
    installed = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    if installed.returncode != 0:
        unavailable("node", f"npm cannot install ws: {installed.stderr.strip()[-500:]}")
    return folder
