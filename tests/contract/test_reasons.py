"""Every reason that the code can give is explained in docs/contracts.md, and nothing else is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ("mesh", "gateway", "router", "inference")
# Named by constants, because they are timers first.
TIMERS = {"FIRST_TOKEN_TIMEOUT", "GAP_TIMEOUT", "THROUGHPUT_FLOOR"}


def values(node: ast.AST) -> Iterator[ast.expr | None]:
    """What a piece of code assigns to, or passes as, a reason."""
    if isinstance(node, ast.keyword) and node.arg == "reason":
        yield node.value
    elif isinstance(node, ast.Assign):
        names = {getattr(target, "id", getattr(target, "attr", "")) for target in node.targets}
        if names & {"reason", "default_reason"}:
            yield node.value
    elif isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") in ("reason", "default_reason"):
        yield node.value


def given() -> set[str]:
    found = set(TIMERS)
    for path in (path for service in SERVICES for path in (ROOT / service).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for value in filter(None, values(node)):
                constants = [c.value for c in ast.walk(value) if isinstance(c, ast.Constant)]
                found |= {c for c in constants if isinstance(c, str) and re.fullmatch(r"[A-Z][A-Z0-9_]+", c)}
    return found


def test_the_reasons_of_the_code_are_those_of_the_document() -> None:
    text = (ROOT / "docs" / "contracts.md").read_text()
    reasons = text[text.index("## Reasons") :]
    explained = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", reasons))
    assert given() == explained
