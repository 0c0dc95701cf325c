"""Builds the CPU kernels with the system's C++ compiler: `python -m inference.native.build`.

One library holds the kernels for every set of instructions in `PATHS`; which of them run is chosen when a model is
opened, so that a library built on one CPU serves on another. Without a compiler nothing is built and the engine runs on
plain torch, slower.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
LIBRARY = Path(__file__).parent / "libheadrace.so"
_AVX512_VNNI = ("-march=x86-64-v4", "-mavx512vnni")
_AVX512_BF16 = (*_AVX512_VNNI, "-mavx512bf16")
# What a path's kernels are compiled with, the fastest path first. What a CPU must have for one: `has` in paths.cpp.
PATHS = (
    {
        "amx": (*_AVX512_BF16, "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
        "avx512_bf16": _AVX512_BF16,
        "avx512_vnni": _AVX512_VNNI,
        "avx512": ("-march=x86-64-v4",),
        "avx2": ("-march=x86-64-v3",),
    }
    if platform.machine() in ("x86_64", "AMD64")
    else {"portable": ()}
)
# Sums are fused where the source says so, and nowhere else: a row's bits must not depend on what a compiler makes of a
# loop.
_FLAGS = ("-std=c++20", "-O3", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-pthread")
# GCC's own AVX-512 headers set off the last two (its bug 105593).
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized")


_COMMON = "common"


class SharedSymbolError(Exception):
    """A path's object defines what another path's may replace at link time; the message names it."""


def sources_hash() -> str:
    """SHA-256 over the C++ sources' names and contents."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.*")):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Job:
    """A source, what is made of it, and for which path: then it is checked for what other paths may not share."""

    source: Path
    made: Path
    path: str
    flags: tuple[str, ...]


def build(library: Path = LIBRARY) -> None:
    """Compile into `library`.

    Raises FileNotFoundError without a compiler, CalledProcessError with its words, and SharedSymbolError.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (g++) on the path")
    half_built = library.with_suffix(f".{os.getpid()}.tmp")
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as threads:
        jobs = list(_jobs(Path(folder)))
        for _ in threads.map(lambda job: compile_one(compiler, job), jobs):
            pass
        _run([compiler, "-shared", "-pthread", *(str(job.made) for job in jobs), "-o", str(half_built)])
    half_built.replace(library)


def _jobs(folder: Path) -> Iterator[Job]:
    """The paths' sources once for each, and the others once; the longest first."""
    for path, flags in PATHS.items():
        for source in sorted((SOURCES / "kernels").glob("*.cpp")):
            yield Job(source, folder / f"{path}-{source.stem}.o", path, flags)
    note = json.dumps({"sources": sources_hash()})
    defined = (f"-DHEADRACE_BUILD={json.dumps(note)}", f"-DHEADRACE_PATHS={' '.join(f'X({path})' for path in PATHS)}")
    for source in sorted(SOURCES.glob("*.cpp")):
        yield Job(source, folder / f"{source.stem}.o", _COMMON, defined)


def compile_one(compiler: str, job: Job) -> None:
    """Compile one object. Raises CalledProcessError and SharedSymbolError."""
    _run(
        [
            compiler,
            *_FLAGS,
            *_WARNINGS,
            *job.flags,
            f"-DHEADRACE_PATH={job.path}",
            "-c",
            str(job.source),
            "-o",
            str(job.made),
        ]
    )
    if job.path != _COMMON:
        _check_symbols(job)


def _check_symbols(job: Job) -> None:
    """The linker keeps one of the functions of one name, and with it one path's instructions: see path.h."""
    tool = shutil.which("nm")
    if tool is None:
        return
    for line in _run([tool, "--defined-only", str(job.made)]).splitlines():
        kind, name = line.split()[-2:]
        # Names in the path's namespace have its length before it. DW.ref names are data for exceptions.
        if kind in "TWVu" and f"{len(job.path)}{job.path}" not in name and not name.startswith("DW.ref."):
            raise SharedSymbolError(f"{job.source.name} defines {name} outside of its path's namespace; see path.h")


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - a fixed command


def main() -> int:
    """Build, or say why not; a missing compiler is no failure, because the engine runs without."""
    try:
        build()
    except FileNotFoundError as error:
        print(f"native kernels not built: {error}; the torch engine will run without them", file=sys.stderr)
    except SharedSymbolError as error:
        print(f"native kernels: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"native kernels did not compile:\n{error.stderr[-4000:]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
