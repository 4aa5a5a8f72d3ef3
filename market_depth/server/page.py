"""The web page over HTTP: its files from the package, with what browsers have to know about them.

A browser asks each time whether a file has changed, and is told no in a few bytes: a new version of the server has a new
page at once, without names that change with the content.
"""

from __future__ import annotations

from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from market_depth.web.files import CONTENT_TYPES, page_files

if TYPE_CHECKING:
    from pathlib import Path

SECURITY_HEADERS = {
    # Everything is from here, and no text can become markup or script: what a venue calls an instrument stays a name.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
}


def page_router() -> APIRouter:
    """The routes: one for each file, which is read now."""
    router = APIRouter(include_in_schema=False)
    for path, file in page_files().items():
        router.add_api_route(path, _PageFile(file).answer)
    return router


class _PageFile:
    def __init__(self, file: Path) -> None:
        self._content = file.read_bytes()
        self._headers = {
            **SECURITY_HEADERS,
            "cache-control": "no-cache",
            "etag": f'"{sha256(self._content).hexdigest()[:32]}"',
        }
        self._content_type = CONTENT_TYPES[file.suffix]

    async def answer(self, request: Request) -> Response:
        """The file, or that the browser has it already."""
        known = [
            tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")
        ]
        if self._headers["etag"] in known or known == ["*"]:
            return Response(None, HTTPStatus.NOT_MODIFIED, self._headers)
        return Response(self._content, headers=self._headers, media_type=self._content_type)
