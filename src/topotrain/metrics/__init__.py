"""Numbers in, numbers out: ranking metrics, reports of a ranking, free baselines, calibration.

The room has the name of a command. Called, it is that command: ``topotrain.metrics("predictions.csv")`` does what
``topotrain.ranking_metrics`` does.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, predictions: Any) -> dict[str, Any]:
        """The command ``metrics``, through the front door."""
        import topotrain

        return topotrain.ranking_metrics(predictions)


sys.modules[__name__].__class__ = _Room
