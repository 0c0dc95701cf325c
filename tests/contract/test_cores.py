"""What a core may speak: the contracts' messages, never their stubs, and nothing that talks to anybody."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORES = [*sorted(path for path in ROOT.glob("*/core") if path.is_dir()), ROOT / "mesh/control/core"]
_TALKS = ("grpc", "aiohttp", "torch", "os", "socket", "subprocess", "urllib.request")


def imported(source: str) -> set[str]:
    """The modules that a source imports, and the names that it takes from packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def forbidden(source: str) -> set[str]:
    return {
        name
        for name in imported(source)
        if name.endswith("_pb2_grpc") or any(name == talks or name.startswith(f"{talks}.") for talks in _TALKS)
    }


@pytest.mark.parametrize("core", CORES, ids=lambda core: str(core.relative_to(ROOT)))
def test_a_core_speaks_messages_and_talks_to_nobody(core: Path) -> None:
    files = sorted(core.rglob("*.py"))
    assert files
    assert {str(file): forbidden(file.read_text()) for file in files if forbidden(file.read_text())} == {}


def test_what_is_forbidden_is_found_however_it_is_imported() -> None:
    assert forbidden("from headrace.router.v1 import router_pb2, router_pb2_grpc")
    assert forbidden("from headrace.router.v1.router_pb2_grpc import RouterStub")
    assert forbidden("def f():\n    import grpc.aio")
    assert not forbidden("from headrace.router.v1 import router_pb2\nfrom mesh.errors import MeshError")
