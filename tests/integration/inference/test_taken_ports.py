"""A port that is taken ends the process at once, saying which port and which setting."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("setting", "value"), [("HEADRACE_INFERENCE_LISTEN", "127.0.0.1:{}"), ("HEADRACE_INFERENCE_METRICS_PORT", "{}")]
)
def test_a_taken_port_is_named_with_its_setting(setting: str, value: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = os.environ | {"HEADRACE_INFERENCE_ENGINE": "static", setting: value.format(port)}
        done = subprocess.run(
            [sys.executable, "-m", "inference"], env=env, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 69
    said = next(line for line in (done.stdout + done.stderr).splitlines() if "service.cannot_start" in line)
    assert f"cannot listen on 127.0.0.1:{port}: " in said
    assert f"free it or change {setting}" in said
