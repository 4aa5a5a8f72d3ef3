"""The description of the HTTP routes as a page to read: no script, nothing from elsewhere."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/web/docs.css">
{content}</html>
"""

_DOCS = """<h1>{title}</h1>
<p>Every error is <code>{{"detail": "text"}}</code>. For programs: <a href="/openapi.json">/openapi.json</a>.</p>
"""


def docs_page(document: Mapping[str, Any]) -> str:
    """An OpenAPI document as HTML to read: every route with what it takes and answers, then the schemas."""
    title = f"{document['info']['title']} {document['info']['version']}"
    parts = [_DOCS.format(title=escape(title))]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(method.upper(), path, operation)
    parts.append("<h1>Schemas</h1>\n")
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        parts += [f'<h2 id="{escape(name)}">{escape(name)}</h2>\n', *_schema(schema)]
    return _TEMPLATE.format(title=escape(title), content="".join(parts))


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method} {escape(path)}</code></h2>\n<p>{escape(operation.get('summary', ''))}</p>\n"
    yield from _table(
        (parameter["name"], parameter.get("required", False), parameter["schema"])
        for parameter in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {})
    for content_type, content in body.items():
        yield f"<p>Takes <code>{escape(content_type)}</code>:</p>\n"
        yield from _schema(content["schema"])
    for status, response in operation["responses"].items():
        for content_type, content in response.get("content", {}).items():
            if status != "default":
                schema = _type_of(content["schema"])
                yield f"<p>{escape(status)}: <code>{escape(content_type)}</code>, {schema}</p>\n"


def _schema(schema: Mapping[str, Any]) -> Iterator[str]:
    if "description" in schema:
        yield f"<p>{escape(schema['description'])}</p>\n"
    required = schema.get("required", ())
    yield from _table((name, name in required, field) for name, field in schema.get("properties", {}).items())
    if "enum" in schema:
        yield f"<p>{_type_of(schema)}</p>\n"


def _table(rows: Iterator[tuple[str, bool, Mapping[str, Any]]]) -> Iterator[str]:
    lines = [
        f"<tr><td><code>{escape(name)}</code><td>{_type_of(schema)}<td>{_presence(schema, is_required=is_required)}"
        f"<td>{escape(schema.get('description', ''))}\n"
        for name, is_required, schema in rows
    ]
    if lines:
        yield "<table>\n" + "".join(lines) + "</table>\n"


def _presence(schema: Mapping[str, Any], *, is_required: bool) -> str:
    if is_required:
        return "required"
    default = schema.get("default")
    return "" if default is None else f"by default <code>{escape(json.dumps(default))}</code>"


def _type_of(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with links to those that have a name."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(_type_of(one) for one in schema[several])
    if "const" in schema:
        return f"<code>{escape(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(json.dumps(one))}</code>" for one in schema["enum"])
    kind = escape(str(schema.get("type", "anything")))
    if kind == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type_of(schema['additionalProperties'])}"
    bounds = [
        f"{sign} {schema[key]:.15g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema
    ]
    return " ".join((kind, *bounds))
