#!/usr/bin/env bash
# Writes the Python stubs of every contract into a folder (default: protos/gen).
set -euo pipefail
cd "$(dirname "$0")"
out="${1:-gen}"
mkdir -p "$out"
find "$out" -mindepth 1 -delete
mapfile -t files < <(find headrace -name '*.proto' | sort)
# The plug-in lies beside the interpreter that runs protoc.
PATH="$(dirname "${PYTHON:-python3}"):$PATH" "${PYTHON:-python3}" -m grpc_tools.protoc -I . \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" "${files[@]}"
find "$out" -type d -exec touch {}/__init__.py \;
rm -f "$out/__init__.py"
