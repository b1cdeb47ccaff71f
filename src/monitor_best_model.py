"""The legacy command: ``python monitor_best_model.py`` is ``topotrain monitor``."""

import sys

from topotrain.cli import main

if __name__ == "__main__":
    main(["monitor", *sys.argv[1:]])
