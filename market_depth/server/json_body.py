"""JSON in the body of a request: read within bounds, checked by a model, and errors in one readable text."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from fastapi import HTTPException
from pydantic import BaseModel, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import Request

MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
"""How much a client may send where JSON is expected, and how long it may take for all of it."""

JSON = "application/json"

Content = TypeVar("Content", bound=BaseModel)


async def read_json(request: Request, model: type[Content]) -> Content:
    """What the body says; an empty one says `{}`.

    Raises: HTTPException 400, 408, 413, 415, 422.
    """
    body = await _read(request)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and content_type != JSON:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"content-type: {JSON} is expected")
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        errors = error.errors()
        if errors[0]["type"] == "json_invalid":
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, first_problem(errors)) from error


def first_problem(errors: Sequence[Mapping[str, Any]], skip: int = 0) -> str:
    """The first of pydantic's errors as text: the field, where there is one, and what is wrong with it.

    `skip` leaves out so many steps of the way to the field.
    """
    first = errors[0]
    field = ".".join(str(step) for step in first["loc"][skip : skip + 1])
    problem: str = first["msg"].removeprefix("Value error, ")
    return f"{field}: {problem}" if field else problem


def described(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is told of an operation that takes the model by `read_json`."""
    schema = model.model_json_schema()
    is_needed = bool(schema.get("required"))
    return {"requestBody": {"content": {JSON: {"schema": schema}}, "required": is_needed}}


async def _read(request: Request) -> bytes:
    if int(request.headers.get("content-length", 0)) > MAX_BODY_BYTES:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT_S):
        async with aclosing(request.stream()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return bytes(body)
    raise HTTPException(HTTPStatus.REQUEST_TIMEOUT)
