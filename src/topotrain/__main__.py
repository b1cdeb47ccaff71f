"""``python -m topotrain``."""

from topotrain.cli import main

main()
