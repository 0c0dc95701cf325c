"""Short words for the parts of schemas."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def obj(required: str = "", /, **properties: Any) -> Schema:
    made: Schema = {"type": "object", "properties": properties}
    return made | ({"required": required.split()} if required else {})


def text(**more: Any) -> Schema:
    return {"type": "string", **more}


def num(kind: str = "integer", **more: Any) -> Schema:
    return {"type": kind, **more}


def many(items: Any, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def one_of(*values: Any, **more: Any) -> Schema:
    return {"type": "string", "enum": list(values), **more}


def ref(name: str, **more: Any) -> Schema:
    return {"$ref": f"#/components/schemas/{name}", **more}


def api(root: str, **schemas: Any) -> Schema:
    """A component of an OpenAPI document, with those that it refers to."""
    return ref(root) | {"components": {"schemas": schemas}}


FLAG = {"type": "boolean"}
WHEN = text(format="date-time", description="When it was made, in UTC.", readOnly=True)
ID = num(format="int64", example=10)
LABEL = text(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", maxLength=63)
