"""Schemas of several kilobytes, which are cheap all the same."""

from __future__ import annotations

from tests.unit.inference.constraints.real_schemas.building import FLAG, Schema, api, many, num, obj, one_of, ref, text


def wide(count: int) -> Schema:
    """A form of many fields: five to twelve kilobytes of text, and cheap."""
    kinds = [
        text(maxLength=200),
        text(),
        num(minimum=0, maximum=1000),
        FLAG,
        text(format="date"),
        one_of("none", "some", "all"),
        many(text(maxLength=50), maxItems=5),
    ]
    return obj(
        "field_0",
        **{
            f"field_{i}": {
                **kinds[i % len(kinds)],
                "title": f"Field {i}",
                "description": f"What the form asks in its line {i}.",
            }
            for i in range(count)
        },
    )


def sections(count: int, each: int) -> Schema:
    """A document of sections, each with fields of its own."""
    return obj(
        **{
            f"section_{s}": obj(
                f"s{s}_0",
                **{f"s{s}_{i}": [text(), num("number"), text(maxLength=100), ref_bool()][i % 4] for i in range(each)},
            )
            for s in range(count)
        }
    )


def ref_bool() -> Schema:
    return {"type": "boolean", "description": "Whether it holds."}


def nested(levels: int) -> Schema:
    """An object in an object."""
    made = num()
    for _ in range(levels):
        made = obj("x", x=made, y=text())
    return made


LARGE: dict[str, Schema] = {
    "form_40": wide(40),
    "form_60": wide(60),
    "form_90": wide(90),
    "sections_10": sections(10, 12),
    "sections_20": sections(20, 8),
    "resources": api(
        "Root",
        Root=obj(**{f"part_{i}": ref(f"Part{i}") for i in range(25)}),
        **{
            f"Part{i}": obj(
                "name",
                name=text(maxLength=253),
                value=num("number"),
                when=text(format="date-time"),
                mode=one_of(*[f"m{i}_{k}" for k in range(6)]),
                next=ref(f"Part{(i + 7) % 25}"),
            )
            for i in range(25)
        },
    ),
    "locales": obj(
        "locale", locale=one_of(*[f"{a}{b}-{c}{d}" for a in "abcdef" for b in "klm" for c in "XY" for d in "PQR"])
    ),
    "questionnaire": obj(
        answers=many(
            {
                "anyOf": [
                    obj(
                        "type",
                        type={"const": f"q{i}"},
                        **{f"value_{i}": text(maxLength=300) if i % 2 else num("number")},
                    )
                    for i in range(24)
                ]
            }
        )
    ),
    "matrix": many(many(num("number"), minItems=4, maxItems=4), minItems=4, maxItems=4),
    "deep": nested(16),
}
