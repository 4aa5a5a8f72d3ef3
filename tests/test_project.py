"""What the project says about itself is true: README, changelog, version, links."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from market_depth.cli import app
from protocol.codecs import decode_answer, decode_request

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(ROOT).parts)
)


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == version


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.relative_to(ROOT)} links to {target}"


def test_the_readme_names_every_command() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for command in commands:
        assert f"`market-depth {command}" in README


def test_the_readme_names_every_option_of_serve() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "market_depth", "serve", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in re.findall(r"^\s+(?:-h, )?(--[a-z-]+)", help_text, re.MULTILINE):
        assert option == "--help" or f"{option}" in README, option


def test_the_frames_in_the_readme_are_valid() -> None:
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    request, answers = blocks
    decode_request(request)
    decoder = json.JSONDecoder()
    rest = answers.strip()
    types = []
    while rest:
        _, end = decoder.raw_decode(rest)
        types.append(decode_answer(rest[:end]).type)
        rest = rest[end:].strip()
    assert types == ["Subscribed", "MarketData"]


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci/run").read_text()
    for name in ("serve", "test"):
        assert f"<!-- {name} -->\n```sh\n" in README
        assert f"readme_command {name}" in script
