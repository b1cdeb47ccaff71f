"""The legacy command: ``python -m train_cli`` is ``topotrain``."""

from topotrain.cli import main

if __name__ == "__main__":
    main()
