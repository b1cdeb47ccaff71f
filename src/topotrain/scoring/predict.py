"""The names under which versions made by topotrain 0.1 import what scores them.

Such a version brings ``served.py`` of its time; in a process that runs today's code already, that file gets today's
scorer by this module, and scores the same.
"""

from __future__ import annotations

from topotrain.scoring.scorer import SCORING_BATCH as SCORING_BATCH
from topotrain.scoring.scorer import Scorer as Scorer
from topotrain.scoring.wire_format import decode_graph as decode_graph
from topotrain.scoring.wire_format import open_graph as open_graph
