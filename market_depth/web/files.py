"""The files of the web page, by the path that a browser asks for."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is none of these is not of the page."""


def page_files() -> dict[str, Path]:
    """All files: the page itself as `/`, what it is made of as `/web/NAME`."""
    files = sorted(path for path in FOLDER.iterdir() if path.suffix in CONTENT_TYPES)
    return {"/" if path.name == "index.html" else f"/web/{path.name}": path for path in files}
