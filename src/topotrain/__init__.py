"""topotrain: train graph networks that score models (decoys) of protein complexes.

The three names below are the whole Python front door; everything else is found by room (see README.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["TrainResult", "__version__", "fit", "load_config"]

if TYPE_CHECKING:
    from topotrain.config import load_config
    from topotrain.training.fit import TrainResult, fit


def __getattr__(name: str) -> Any:
    """Import on first use: torch and Lightning take seconds, and most commands need neither."""
    if name == "load_config":
        from topotrain.config import load_config

        return load_config
    if name in ("fit", "TrainResult"):
        from topotrain.training import fit as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
