"""Environment in, exit code out."""

import sys

from echo.app import build
from echo.config import EchoConfig
from mesh.lifecycle import main

if __name__ == "__main__":
    sys.exit(main("echo", EchoConfig, build))
