"""Environment in, exit code out."""

import sys

from mesh.control.app import build
from mesh.control.config import ControlConfig
from mesh.lifecycle import main

if __name__ == "__main__":
    sys.exit(main("control", ControlConfig, build))
