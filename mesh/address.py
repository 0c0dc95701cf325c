"""Addresses in settings and files: texts that are checked when they are read, and their parts."""

from __future__ import annotations

import re
from typing import Annotated, Final

from mesh.config import Checked

_HOST: Final = re.compile(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_XDS: Final = "xds:///"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MAX_PORT: Final = 65535


def check_host(text: str) -> str:
    """The text, when it is a host. Raises ValueError that says what is needed."""
    if not _HOST.fullmatch(text):
        raise ValueError(f"{text!r} is no host; for example 127.0.0.1, or [::1]")
    return text


def check_listen(text: str) -> str:
    """The text, when it is host:port to listen on. Raises ValueError."""
    return _check(text, 0)


def check_peer(text: str) -> str:
    """The text, when it is host:port of somebody who listens. Raises ValueError."""
    return _check(text, 1)


def check_target(text: str) -> str:
    """The text, when it is a name in the snapshot or host:port. Raises ValueError."""
    if text.startswith(_XDS):
        if not _NAME.fullmatch(text.removeprefix(_XDS)):
            raise ValueError(f"{text!r} names no service; for example {_XDS}router")
        return text
    try:
        return _check(text, 1)
    except ValueError as error:
        raise ValueError(f"{error}, or {_XDS}<service>") from None


# A name, an IPv4 address, or an IPv6 address in brackets.
Host = Annotated[str, Checked(check_host)]
# host:port; port 0 takes a free one. 0.0.0.0 and [::] listen everywhere, and have to be written.
ListenAddress = Annotated[str, Checked(check_listen)]
# host:port of somebody who listens.
PeerAddress = Annotated[str, Checked(check_peer)]
# Whom to call: `xds:///name`, a name in the control plane's snapshot, or host:port.
Target = Annotated[str, Checked(check_target)]


def split(address: str) -> tuple[str, int]:
    """Host, without the brackets of IPv6, and port of an address that was checked."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def port_of(address: str) -> int:
    """The port of an address that was checked."""
    return split(address)[1]


def is_everywhere(address: str) -> bool:
    """Whether who listens there listens on every interface."""
    return split(address)[0] in ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def _check(text: str, min_port: int) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not _HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(f"{text!r} is not host:port; for example 127.0.0.1:8080")
    if not min_port <= int(port) <= _MAX_PORT:
        raise ValueError(f"{text!r}: a port is {min_port} to {_MAX_PORT}")
    return text
