"""JSON Schema's formats of strings, as expressions of which every text is one; not every one need be among the texts.

Formats that are not here are annotations, as the standard has it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

from .regex.parsing import parse
from .regex.tree import Node

# A year that every calendar has, and February as it is in all of them.
_DATE = (
    r"[1-9]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))"
)
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d"
_TIME = rf"{_CLOCK}:[0-5]\d(?:\.\d{{1,6}})?(?:Z|[+-]{_CLOCK})"
_HOURS = r"(?:\d{1,4}H(?:\d{1,4}M(?:\d{1,4}S)?)?|\d{1,4}M(?:\d{1,4}S)?|\d{1,4}S)"
_DAYS = r"(?:\d{1,4}Y(?:\d{1,4}M(?:\d{1,4}D)?)?|\d{1,4}M(?:\d{1,4}D)?|\d{1,4}D)"
_LABEL = r"[A-Za-z0-9]{1,24}(?:-[A-Za-z0-9]{1,24})?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_GROUP = r"[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [
        rf"(?:{_GROUP}:){{7}}{_GROUP}",
        *(
            (rf"{_GROUP}(?::{_GROUP}){{{left - 1}}}" if left else "") + rf"::(?:{_GROUP}(?::{_GROUP}){{0,{6 - left}}})?"
            for left in range(7)
        ),
    ]
)
_PATH = r"[A-Za-z0-9._~!$&'()*+,;=:@-]"
_TAIL = rf"(?:\?(?:{_PATH}|[/?])*)?(?:#(?:{_PATH}|[/?])*)?"
_URI = rf"[a-z][a-z0-9]{{1,9}}://{_HOST}(?::[1-9]\d{{0,3}})?(?:/{_PATH}*)*{_TAIL}"
_POINTER = r"(?:/(?:[^/~\x00-\x1f]|~[01])*)*"
_EMAIL = rf"[A-Za-z0-9]{{1,24}}(?:[._+-][A-Za-z0-9]{{1,24}})?@{_LABEL}(?:\.{_LABEL})?\.[A-Za-z]{{2,12}}"
_VARIABLE = r"\{[A-Za-z][A-Za-z0-9_]*\}"

FORMATS: Mapping[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": rf"P(?:\d{{1,4}}W|{_DAYS}(?:T{_HOURS})?|T{_HOURS})",
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "ipv6": _IPV6,
    "uri": _URI,
    "iri": _URI,
    "uri-reference": rf"{_URI}|(?:/{_PATH}+)+{_TAIL}",
    "iri-reference": rf"{_URI}|(?:/{_PATH}+)+{_TAIL}",
    "uri-template": rf"https?://{_HOST}(?:/(?:[A-Za-z0-9._~-]|{_VARIABLE})*)*",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(?:0|[1-9]\d{{0,3}})(?:#|{_POINTER})",
    "regex": r"[A-Za-z0-9_ -]*",
}


@functools.cache
def format_tree(name: str) -> Node:
    """The format's expression; KeyError for none of FORMATS."""
    return parse(f"^(?:{FORMATS[name]})$").whole
