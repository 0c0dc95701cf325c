"""`python -m router`: environment to exit code."""

import sys

from mesh.lifecycle import main
from router.app import build
from router.config import RouterConfig

if __name__ == "__main__":
    sys.exit(main("router", RouterConfig, build))
