"""Environment in, exit code out."""

from __future__ import annotations

import os
import sys

from inference import planning
from inference.app import build
from inference.config import ENGINE_VARIABLE, config_type
from inference.engines import variables
from mesh.config import ConfigErrors
from mesh.lifecycle import EX_USAGE, run


def main() -> int:
    """Run the node, or with `plan` as the first argument size a model; see mesh.lifecycle.main for the exit codes."""
    if sys.argv[1:2] == ["plan"]:
        return planning.main(sys.argv[2:])
    for variable, value in variables(os.environ.get(ENGINE_VARIABLE, "")).items():
        os.environ.setdefault(variable, value)
    try:
        config = config_type(os.environ)
    except ConfigErrors as problems:
        print(problems, file=sys.stderr)
        return EX_USAGE
    return run("inference", config, build, os.environ)


if __name__ == "__main__":
    sys.exit(main())
