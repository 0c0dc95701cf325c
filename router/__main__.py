"""`python -m router`: environment to exit code. `python -m router calibrate`: a cascade's thresholds."""

import sys

from mesh.lifecycle import main
from router.app import build
from router.calibrate import main as calibrate
from router.config import RouterConfig

if __name__ == "__main__":
    if sys.argv[1:2] == ["calibrate"]:
        sys.exit(calibrate(sys.argv[2:]))
    sys.exit(main("router", RouterConfig, build))
