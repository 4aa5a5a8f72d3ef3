"""The web page's files as the server sends them."""

import re

import pytest

from market_depth.web.files import CONTENT_TYPES, FOLDER, page_files
from tests.market_depth.server.applications import Answer, ask
from tests.market_depth.server.test_http import Site

PATHS = sorted(page_files())


async def get(path: str, *headers: tuple[str, str]) -> Answer:
    return await ask(Site().application, "GET", path, headers=headers)


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_comes_with_its_type_and_may_be_kept(path: str) -> None:
    site = Site()
    got = await site.get(path)
    file = page_files()[path]
    assert (got.status, got.body) == (200, file.read_bytes())
    assert got.headers["content-type"] == CONTENT_TYPES[file.suffix]
    assert got.headers["cache-control"] == "no-cache"
    again = await ask(
        site.application, "GET", path, headers=[("if-none-match", f'"x", W/{got.headers["etag"]}')]
    )
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == got.headers["etag"]


async def test_files_that_differ_have_different_tags() -> None:
    site = Site()
    tags = {(await site.get(path)).headers["etag"] for path in PATHS}
    assert len(tags) == len(PATHS)


async def test_another_version_is_sent_whole() -> None:
    assert (await get("/", ("if-none-match", '"of-yesterday"'))).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web",
        "/web/index.html",
        "/web/files.py",
        "/web/../app.py",
        "/web/%2e%2e/app.py",
        "/web/x.js",
    ],
)
async def test_nothing_but_the_files_of_the_page_can_be_reached(path: str) -> None:
    assert (await get(path)).status == 404


async def test_the_policy_lets_nothing_in_from_elsewhere_and_no_script_or_style_inside_the_page() -> None:
    got = await get("/")
    policy = got.headers["content-security-policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*|data:", policy)
    assert not re.search(rb"<style|<script[^>]*>[^<]|\bstyle=|\son\w+=|https?://", got.body)


def test_everything_that_the_page_refers_to_is_there() -> None:
    for path, file in page_files().items():
        text = file.read_text()
        for reference in re.findall(r'(?:href|src)="(/[^"]*)"', text):
            assert reference in PATHS, f"{path} refers to {reference}"
        for module in re.findall(r"from '\./([^']+)'", text):
            assert f"/web/{module}" in PATHS, f"{path} imports {module}"


def test_every_module_of_the_page_is_used() -> None:
    texts = {path: file.read_text() for path, file in page_files().items()}
    for path in PATHS:
        if path.endswith(".js"):
            name = path.removeprefix("/web/")
            users = [other for other, text in texts.items() if other != path and name in text]
            assert users, path


def test_no_module_makes_markup_of_text() -> None:
    for file in FOLDER.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", file.read_text()
        ), file.name
