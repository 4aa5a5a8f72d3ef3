"""An instant in a request: a field of a model, or a parameter of a query."""

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from protocol.timestamp import instant_ns

Instant = Annotated[
    int,
    BeforeValidator(instant_ns),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 0}],
            "description": "RFC 3339, or ns or ms since the epoch",
        }
    ),
]
