"""The picture of the watcher that the documents show."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.depth_server import DepthServer
from tests.examples.conftest import EXAMPLES


def texts(picture: Path) -> str:
    """What a picture says, with its fixed spaces as spaces."""
    svg = ET.parse(picture)  # noqa: S314 - we made it
    return " ".join(svg.getroot().itertext()).replace("\xa0", " ")


def test_the_picture_shows_a_ladder_and_loads_nothing(depth_server: DepthServer, tmp_path: Path) -> None:
    picture = tmp_path / "watch.svg"
    script = EXAMPLES / "python" / "watch_picture.py"
    arguments = [depth_server.addr, "BTCUSD", str(picture), "--seconds", "0.7"]
    subprocess.run([sys.executable, str(script), *arguments], check=True, capture_output=True, timeout=30)
    for shown in (picture, EXAMPLES / "watch.svg"):
        assert "   mid 64," in texts(shown)
        assert "● live" in texts(shown)
        links = shown.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in links
