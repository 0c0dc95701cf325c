"""Builds the CPU kernels with the system's C++ compiler: `python -m inference.native.build`.

Without a compiler nothing is built and the engine runs on plain torch, slower. Set HEADRACE_NATIVE_MARCH to build for
another CPU than this one (as -march names it), for example in an image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
LIBRARY = Path(__file__).parent / "libheadrace.so"
# What a compiler calls the instruction sets that matter here, and a CPU's flags too when underscores are left out.
_FEATURE = re.compile(r"(AVX\w*|FMA|F16C)")
# GCC's own AVX-512 headers set off the last two (its bug 105593).
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized")


def sources_hash() -> str:
    """SHA-256 over the C++ sources' names and contents."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def cpu_features() -> frozenset[str]:
    """The instruction sets that this machine's CPU has; empty where /proc does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    plain = (flag.replace("_", "") for flag in flags)
    return frozenset(flag for flag in plain if _FEATURE.fullmatch(flag.upper()))


def _compiled_features(compiler: str, march: str) -> list[str]:
    """The instruction sets that the compiler uses for `march`."""
    command = [compiler, f"-march={march}", "-dM", "-E", "-x", "c++", "/dev/null"]
    macros = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - a fixed command
    names = re.findall(r"^#define __(\w+)__ 1$", macros, re.MULTILINE)
    return sorted(name.replace("_", "").lower() for name in names if _FEATURE.fullmatch(name))


def build(library: Path = LIBRARY, march: str = "native") -> None:
    """Compile into `library`. Raises FileNotFoundError without a compiler, CalledProcessError with its words."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (g++) on the path")
    needs = _compiled_features(compiler, march)
    note = json.dumps({"sources": sources_hash(), "march": march, "needs": needs})
    half_built = library.with_suffix(f".{os.getpid()}.tmp")
    command = [compiler, "-std=c++20", "-O3", f"-march={march}", "-fPIC", "-shared", "-pthread", *_WARNINGS]
    command += [f"-DHEADRACE_BUILD={json.dumps(note)}", *map(str, sorted(SOURCES.glob("*.cpp"))), "-o", str(half_built)]
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - a fixed command on our sources
    half_built.replace(library)


def main() -> int:
    """Build, or say why not; a missing compiler is no failure, because the engine runs without."""
    try:
        build(march=os.environ.get("HEADRACE_NATIVE_MARCH", "native"))
    except FileNotFoundError as error:
        print(f"native kernels not built: {error}; the torch engine will run without them", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"native kernels did not compile:\n{error.stderr[-4000:]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
