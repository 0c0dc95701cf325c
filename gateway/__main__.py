"""`python -m gateway`: environment to exit code."""

import sys

from gateway.app import build
from gateway.config import GatewayConfig
from mesh.lifecycle import main

if __name__ == "__main__":
    sys.exit(main("gateway", GatewayConfig, build))
