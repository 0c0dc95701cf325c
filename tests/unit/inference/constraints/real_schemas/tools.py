"""Parameters of tools, as catalogues and the libraries that make them write them."""

from __future__ import annotations

from tests.unit.inference.constraints.real_schemas.building import FLAG, Schema, many, num, obj, one_of, text

TOOLS: dict[str, Schema] = {
    "weather": obj(
        "location",
        location=text(description="The city and state, e.g. San Francisco, CA"),
        unit=one_of("celsius", "fahrenheit"),
    ),
    "search_files": obj("path pattern", path=text(), pattern=text(), excludePatterns=many(text(), default=[]))
    | {"additionalProperties": False, "$schema": "http://json-schema.org/draft-07/schema#"},
    "edit_file": obj(
        "path edits",
        path=text(),
        edits=many(
            obj("oldText newText", oldText=text(description="Text to search for"), newText=text())
            | {"additionalProperties": False}
        ),
        dryRun={**FLAG, "default": False},
    ),
    "run_sql": obj(
        "query",
        query=text(),
        parameters=many({"type": ["string", "number", "boolean", "null"]}),
        timeout_ms=num(minimum=1, maximum=600000),
    ),
    "send_email": obj(
        "to subject body",
        to=many(text(format="email"), minItems=1),
        cc=many(text(format="email")),
        subject=text(maxLength=998),
        body=text(),
        html=FLAG,
        priority=one_of("low", "normal", "high"),
    ),
    "calendar": obj(
        "title start end",
        title=text(),
        start=text(format="date-time"),
        end=text(format="date-time"),
        attendees=many(obj("email", email=text(format="email"), optional=FLAG)),
        recurrence=obj(
            frequency=one_of("daily", "weekly", "monthly"),
            interval=num(minimum=1, maximum=52),
            until=text(format="date"),
            byDay=many(one_of("MO", "TU", "WE", "TH", "FR", "SA", "SU"), maxItems=7),
        ),
    ),
    "http": obj(
        "url",
        url=text(format="uri"),
        method=one_of("GET", "POST", "PUT", "DELETE"),
        headers={"type": "object", "additionalProperties": text()},
        body={"anyOf": [text(), {"type": "object"}, {"type": "null"}]},
    ),
    "create_issue": obj(
        "owner repo title",
        owner=text(),
        repo=text(),
        title=text(minLength=1, maxLength=256),
        body=text(),
        labels=many(text()),
        assignees=many(text(), maxItems=10),
        milestone=num(minimum=1),
    ),
    "thoughts": obj(
        "thought nextThoughtNeeded thoughtNumber totalThoughts",
        thought=text(),
        nextThoughtNeeded=FLAG,
        thoughtNumber=num(minimum=1),
        totalThoughts=num(minimum=1),
        isRevision=FLAG,
    ),
    "graph": obj(
        "entities",
        entities=many(obj("name entityType observations", name=text(), entityType=text(), observations=many(text()))),
    ),
    "pydantic": {
        "$defs": {
            "Kind": {"enum": ["a", "b"], "title": "Kind", "type": "string"},
            "Item": obj(
                "kind",
                kind={"$ref": "#/$defs/Kind"},
                amount={"anyOf": [num("number"), {"type": "null"}], "default": None, "title": "Amount"},
            )
            | {"title": "Item"},
        },
        **obj(
            "items",
            items=many({"$ref": "#/$defs/Item"}, title="Items"),
            note={"anyOf": [text(), {"type": "null"}], "default": None},
        ),
        "title": "Order",
    },
    "zod": obj(
        "a",
        a={"anyOf": [{"type": "string", "const": "x"}, {"type": "number", "const": 1}]},
        b=many(num("number"), minItems=1),
    )
    | {"additionalProperties": False, "$schema": "http://json-schema.org/draft-07/schema#"},
    "pydantic_union": {
        "$defs": {
            "Cat": obj("kind", kind={"const": "cat", "type": "string"}, lives=num(maximum=9)),
            "Dog": obj("kind", kind={"const": "dog", "type": "string"}, tricks=many(text())),
        },
        **obj(
            "pet",
            pet={
                "discriminator": {"mapping": {"cat": "#/$defs/Cat"}, "propertyName": "kind"},
                "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            },
        ),
    },
    "tuple": obj(point={"type": "array", "prefixItems": [num("number"), num("number")], "minItems": 2, "maxItems": 2}),
    "no_arguments": {"type": "object", "properties": {}},
    "browser": obj(
        "action",
        action=one_of("click", "type", "scroll"),
        selector=text(),
        coordinates=many(num(), minItems=2, maxItems=2),
        text=text(),
    ),
    "extract": obj(
        "people",
        people=many(
            obj(
                "name",
                name=text(),
                age={"type": ["integer", "null"], "minimum": 0, "maximum": 150},
                emails=many(text(format="email")),
            )
        ),
    ),
    "chart": obj(
        "type series",
        type=one_of("line", "bar", "pie"),
        series=many(obj("name data", name=text(), data=many(num("number")), color=text(pattern="^#[0-9A-Fa-f]{6}$"))),
        options={"type": "object"},
    ),
    "conditional": obj("mode", mode=one_of("a", "b"), value=text())
    | {"if": {"properties": {"mode": {"const": "a"}}}, "then": {"required": ["value"]}},
    "lookahead": obj("password", password=text(pattern="^(?=.*[A-Z])(?=.*[0-9]).{8,}$")),
    "vscode_setting": obj(
        level=one_of(
            "off",
            "warn",
            enumDescriptions=["Off", "Warn"],
            markdownDescription="**Level**",
            markdownEnumDescriptions=["o"],
            scope="resource",
            order=3,
        )
    ),
    "shell": obj(
        "command",
        command=many(text(), minItems=1),
        workdir=text(),
        timeout=num("number", exclusiveMinimum=0),
        env={"type": "object", "patternProperties": {"^[A-Z_][A-Z0-9_]*$": text()}},
    ),
    "names": obj(
        vars={
            "type": "object",
            "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]{0,30}$"},
            "additionalProperties": num("number"),
        }
    ),
    "any": obj("name", name=text(), arguments={}, payload=True),
}
