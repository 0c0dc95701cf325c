"""Components of OpenAPI documents: what requests and answers hold."""

from __future__ import annotations

from tests.unit.inference.constraints.real_schemas.building import (
    FLAG,
    ID,
    WHEN,
    Schema,
    api,
    many,
    num,
    obj,
    one_of,
    ref,
    text,
)

OPENAPI: dict[str, Schema] = {
    "pet": api(
        "Pet",
        Pet=obj(
            "name photoUrls",
            id=ID,
            name=text(example="doggie"),
            category=ref("Category"),
            photoUrls=many(text(xml={"name": "photoUrl"}), xml={"wrapped": True}),
            tags=many(ref("Tag")),
            status=one_of("available", "pending", "sold", description="pet status in the store"),
        )
        | {"xml": {"name": "pet"}},
        Category=obj(id=ID, name=text(example="Dogs")),
        Tag=obj(id=ID, name=text()),
    ),
    "order": obj(
        id=ID,
        petId=ID,
        quantity=num(format="int32", example=7),
        shipDate=WHEN,
        status=one_of("placed", "approved", "delivered"),
        complete=FLAG,
    ),
    "user": obj(
        id=ID,
        username=text(minLength=3, maxLength=32),
        email=text(format="email"),
        password=text(format="password"),
        userStatus=num(format="int32", description="User Status"),
    ),
    "error": obj("code message", code=num(format="int32"), message=text(), details=many(obj())),
    "problem": obj(
        type=text(format="uri", default="about:blank"),
        title=text(),
        status=num(minimum=100, maximum=599),
        detail=text(),
        instance=text(format="uri-reference"),
    ),
    "page": obj("items total", items=many(ref("Item")), total=num(minimum=0), next=text(nullable=True, format="uri"))
    | {
        "components": {
            "schemas": {"Item": obj("id", id=text(format="uuid"), price=num("number", format="double", minimum=0))}
        }
    },
    "money": obj(
        "amount currency",
        amount=num(description="in cents"),
        currency=text(minLength=3, maxLength=3, pattern="^[A-Z]{3}$"),
    ),
    "composed": api(
        "Dog",
        Animal=obj("kind", kind=text(), name=text()) | {"discriminator": {"propertyName": "kind"}},
        Dog={"allOf": [ref("Animal"), obj("bark", bark=FLAG)]},
    ),
    "discriminated": api(
        "Event",
        Event={
            "oneOf": [ref("Opened"), ref("Closed")],
            "discriminator": {"propertyName": "type", "mapping": {"opened": "x"}},
        },
        Opened=obj("type by", type=one_of("opened"), by=text()),
        Closed=obj("type reason", type=one_of("closed"), reason=text(maxLength=500)),
    ),
    "nullable": obj(
        a=text(nullable=True),
        b=num(nullable=False),
        c={"type": ["string", "null"]},
        d={"anyOf": [text(), {"type": "null"}]},
    ),
    "map": {"type": "object", "additionalProperties": {"type": "string"}, "example": {"a": "b"}},
    "map_of_objects": {"type": "object", "additionalProperties": obj("value", value=num("number"))},
    "metadata": obj("id", id=text(), metadata={"type": "object", "additionalProperties": True, "maxProperties": 16}),
    "charge": obj(
        "amount currency",
        amount=num(minimum=50, maximum=99999999),
        currency=one_of("usd", "eur", "jpy"),
        capture_method=one_of("automatic", "manual", **{"x-stripeBypassValidation": True}),
        receipt_email={"anyOf": [text(format="email", maxLength=512), one_of("")]},
        expand=many(text(maxLength=5000)),
        metadata={"anyOf": [{"type": "object", "additionalProperties": text()}, one_of("")]},
        statement_descriptor=text(maxLength=22, nullable=True),
    ),
    "coordinates": many(num("number", minimum=-180, maximum=180), minItems=2, maxItems=2),
    "geojson": obj("type coordinates", type=one_of("Point"), coordinates=many(num("number"), minItems=2, maxItems=3)),
    "search": obj(
        q=text(minLength=1, maxLength=256),
        sort=one_of("asc", "desc", default="asc"),
        limit=num(minimum=1, maximum=100, default=20),
        offset=num(minimum=0, default=0),
        fields=many(one_of("id", "name", "date"), uniqueItems=False),
    ),
    "patch": many(
        obj("op path", op=one_of("add", "remove", "replace"), path=text(format="json-pointer"), value={}), minItems=1
    ),
    "invoice": api(
        "Invoice",
        Invoice=obj(
            "number lines total",
            number=text(pattern=r"^INV-\d{6}$"),
            issued=text(format="date"),
            due=text(format="date"),
            lines=many(ref("Line"), minItems=1),
            total=ref("Money"),
            notes=text(maxLength=2000),
            paid=FLAG,
        ),
        Line=obj(
            "description quantity price",
            description=text(maxLength=200),
            quantity=num(exclusiveMinimum=0),
            price=ref("Money"),
        ),
        Money=obj("amount currency", amount=num("number"), currency=one_of("EUR", "USD", "GBP", "CHF")),
    ),
    "token": obj(
        "access_token token_type",
        access_token=text(),
        token_type=one_of("Bearer"),
        expires_in=num(minimum=0),
        scope=text(),
    ),
    "webhook": obj(
        "url events",
        url=text(format="uri"),
        events=many(one_of("push", "pull_request", "issue"), minItems=1),
        active=FLAG,
        config=obj(content_type=one_of("json", "form"), insecure_ssl={"oneOf": [text(), num("number")]}, secret=text()),
    ),
    "repository": obj(
        "id name private",
        **{name: text(format="uri") for name in ("url", "html_url", "clone_url", "forks_url", "hooks_url")},
        id=ID,
        name=text(),
        private=FLAG,
        description={"type": ["string", "null"]},
        fork=FLAG,
        permissions=obj(admin=FLAG, push=FLAG, pull=FLAG),
        topics=many(text()),
        visibility=text(default="public"),
    ),
    "tree": api("Node", Node=obj("name", name=text(), children=many(ref("Node")))),
    "comment": api(
        "Comment",
        Comment=obj("body", body=text(), replies=many(ref("Comment")), author=ref("Author")),
        Author=obj(login=text()),
    ),
    "dates": obj(start=text(format="date"), at=text(format="time"), every=text(format="duration"), seen=WHEN),
    "hosts": obj(
        host=text(format="hostname"), v4=text(format="ipv4"), v6=text(format="ipv6"), port=num(minimum=1, maximum=65535)
    ),
    "binary": obj(file=text(format="binary"), data=text(format="byte"), digest=text(pattern="^[a-f0-9]{64}$")),
    "semver": obj(
        version=text(pattern=r"^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$"), range=text(pattern=r"^[\^~]?\d+(\.\d+){0,2}$")
    ),
    "color": obj(hex=text(pattern="^#([0-9a-fA-F]{3}){1,2}$"), alpha=num("number", minimum=0, maximum=1)),
    "phone": obj(number=text(pattern=r"^\+[1-9]\d{1,14}$"), kind=one_of("home", "work", "mobile")),
    "iban": text(pattern=r"^[A-Z]{2}\d{2}[A-Z0-9]{11,30}$", minLength=15, maxLength=34),
    "rating": obj("stars", stars=num("number", minimum=0.5, maximum=5), review=text(maxLength=4000)),
    "exclusive_30": obj(
        price=num("number", minimum=0, exclusiveMinimum=True), share=num("number", minimum=0, maximum=1)
    ),
    "unique": obj(tags=many(text(), uniqueItems=True)),
    "multiple": obj(step=num(multipleOf=5, minimum=0), cents=num("number", multipleOf=0.01)),
    "any_of_required": obj(email=text(format="email"), phone=text())
    | {"anyOf": [{"required": ["email"]}, {"required": ["phone"]}]},
    "one_of_required": obj(id=text(), name=text()) | {"oneOf": [{"required": ["id"]}, {"required": ["name"]}]},
    "not_empty": obj(patch={"type": "object", "minProperties": 1, "additionalProperties": text()}),
    "write_only": obj("login secret", login=text(), secret=text(writeOnly=True, minLength=8, maxLength=64)),
    "deprecated": obj(old=text(deprecated=True, description="Use `new`."), new=text(examples=["a", "b"])),
    "external": obj(a=text()) | {"externalDocs": {"url": "https://example.org"}, "xml": {"name": "a"}, "x-order": 3},
}
