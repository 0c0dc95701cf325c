"""Measures on the first CUDA device: a table, then one JSON line. Without such a device it says so and ends well.

Needs torch, triton, transformers and numpy, and nothing else of what the services need; downloads nothing.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu")
    parser.add_argument("--quick", action="store_true", help="1 and 64 streams, fewer rounds, no peer")
    parser.add_argument("--precision", choices=("bfloat16", "fp8", "int4", "int8"), help="only this one")
    parser.add_argument("--kv", choices=("auto", "fp8"), default="auto", help="what keys and values are held in")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device on this machine: nothing was measured.")
        print(json.dumps({"bench": "gpu", "figures": [], "skipped": "no CUDA device"}))
        return
    from bench.gpu.measure import measure  # noqa: PLC0415 - a machine without Triton still gets its answer above

    figures, failed = measure(arguments.quick, arguments.precision, arguments.kv)
    print(json.dumps({"bench": "gpu", "device": torch.cuda.get_device_name(), "figures": figures}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
