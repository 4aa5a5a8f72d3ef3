"""The protocol's text says what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import protocol
from protocol.codecs import decode_answer, decode_request
from protocol.errors import WIRE_ERRORS, CloseCode
from protocol.messages import CLIENT_TYPES, DEFAULT_LEVELS, SERVER_MESSAGE
from protocol.session import Limits

TEXT = (Path(protocol.__file__).parent / "README.md").read_text()
GOLDEN = Path(__file__).parent / "golden"

EXAMPLES = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    match = re.search(rf"^#+ {title}\n(.*?)(?=^#+ |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert match is not None, f"no section {title!r}"
    return match[1]


def table(title: str) -> list[list[str]]:
    """The rows of a section's first table, without its head."""
    rows = re.findall(r"^\| (.*) \|$", section(title), re.MULTILINE)
    return [row.split(" | ") for row in rows[2:]]


def content(text: str) -> Any:
    """The JSON value, with its numbers as they are written: 1.50 is not 1.5."""
    return json.loads(text, parse_float=str)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: content(example)["type"])
def test_an_example_is_a_valid_message(example: str) -> None:
    if content(example)["type"] in CLIENT_TYPES:
        decode_request(example)
    else:
        decode_answer(example)


def test_the_examples_are_the_golden_frames() -> None:
    golden = [content(path.read_text()) for path in GOLDEN.glob("*.json")]
    assert sorted(map(str, map(content, EXAMPLES))) == sorted(map(str, golden))


def test_every_message_has_its_section_with_an_example_of_it() -> None:
    server_types = set(SERVER_MESSAGE.json_schema()["discriminator"]["mapping"])
    assert len(server_types) == 5
    for name in server_types | set(CLIENT_TYPES):
        assert re.search(rf'"type": "{name}"', section(name)), name


@pytest.mark.parametrize(("name", "model"), CLIENT_TYPES.items(), ids=CLIENT_TYPES.keys())
def test_the_fields_of_a_request_are_those_of_its_model(name: str, model: Any) -> None:
    fields = {row[0].strip("`"): row[1] for row in table(name)}
    assert fields == {
        field: info.description for field, info in model.model_fields.items() if field != "type"
    }


def test_the_default_depth_is_told() -> None:
    assert f"{DEFAULT_LEVELS} when left out" in section("Subscribe")


def test_the_table_of_errors_is_that_of_the_code() -> None:
    assert table("Errors") == [[str(row.code), row.when, row.remedy] for row in WIRE_ERRORS.values()]


def test_the_limits_are_those_of_the_code() -> None:
    limits = Limits()
    assert [float(row[1]) for row in table("Limits")] == [
        limits.max_message_bytes,
        limits.max_streams,
        limits.message_burst,
        limits.messages_per_s,
        limits.refusal_burst,
        limits.refusals_per_s,
    ]


def test_the_close_codes_are_those_of_the_code() -> None:
    assert [int(row[0]) for row in table("Close codes")] == sorted(CloseCode)


def test_every_file_that_it_names_is_there() -> None:
    folder = Path(protocol.__file__).parent
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    for link in links:
        assert (folder / link).exists(), link
