"""Environment in, exit code out."""

from __future__ import annotations

import os
import sys

from inference.app import build
from inference.config import config_type
from mesh.config import ConfigErrors
from mesh.lifecycle import EX_USAGE, run


def main() -> int:
    """Run the node; see mesh.lifecycle.main for the exit codes."""
    try:
        config = config_type(os.environ)
    except ConfigErrors as problems:
        print(problems, file=sys.stderr)
        return EX_USAGE
    return run("inference", config, build, os.environ)


if __name__ == "__main__":
    sys.exit(main())
