"""Boosted regression trees on columns of whole graphs: a baseline that is learned, in about a second.

scikit-learn grows them (``HistGradientBoostingRegressor``); what is kept of them is plain numbers, and what predicts
with these is a few lines of NumPy, so that they travel with a model version without a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from topotrain.errors import DataError
from topotrain.metrics.ranking import Values

Integers = npt.NDArray[np.intp]

NUM_TREES, LEAVES, SEED = 100, 8, 0
WRITTEN = "boosted trees as a model version keeps them"
NODE_LISTS = ("column", "threshold", "left", "right", "value")


@dataclass(frozen=True)
class Trees:
    """Boosted trees: what they predict is the sum of the start and of one value from each tree.

    A row goes from the first node of a tree to the left where its column is not above the threshold, else to the
    right, until it comes to a leaf, which leads to itself.

    Attributes:
        num_columns: that a row has.
        start: what is predicted before the first tree.
        first: (num_trees,) the first node of each tree.
        column: (num_nodes,) which column decides; 0 at a leaf.
        threshold: (num_nodes,) up to where a row goes left; 0 at a leaf.
        left: (num_nodes,) the node to the left.
        right: (num_nodes,) the node to the right.
        value: (num_nodes,) of a leaf what it adds.
    """

    num_columns: int
    start: float
    first: Integers
    column: Integers
    threshold: Values
    left: Integers
    right: Integers
    value: Values

    def predict(self, columns: Values) -> Values:
        """Predictions for (num_rows, num_columns) values, as scikit-learn makes them."""
        total = np.full(len(columns), self.start)
        rows = np.arange(len(columns))
        for root in self.first:
            node = np.full(len(columns), root)
            while True:
                goes_left = columns[rows, self.column[node]] <= self.threshold[node]
                following = np.where(goes_left, self.left[node], self.right[node])
                if np.array_equal(following, node):
                    break
                node = following
            total += self.value[node]
        return total

    def to_dict(self) -> dict[str, Any]:
        """Plain values, exact."""
        lists = {name: getattr(self, name).tolist() for name in ("first", *NODE_LISTS)}
        return {"num_columns": self.num_columns, "start": self.start, **lists}

    @classmethod
    def from_dict(cls, content: Any, name: str = "trees") -> Trees:
        """The other way.

        Raises:
            DataError: it is malformed; trees that would not end are.
        """
        try:
            trees = cls(
                num_columns=int(content["num_columns"]),
                start=float(content["start"]),
                first=np.array(content["first"], dtype=np.intp),
                column=np.array(content["column"], dtype=np.intp),
                threshold=np.array(content["threshold"], dtype=np.float64),
                left=np.array(content["left"], dtype=np.intp),
                right=np.array(content["right"], dtype=np.intp),
                value=np.array(content["value"], dtype=np.float64),
            )
            sound = trees._sound()
        except (IndexError, KeyError, OverflowError, TypeError, ValueError):
            sound = False
        if not sound:
            raise DataError(f"{name}: malformed", WRITTEN)
        return trees

    def _sound(self) -> bool:
        nodes = [getattr(self, name) for name in NODE_LISTS]
        num_nodes = len(self.value)
        if any(one.shape != (num_nodes,) for one in nodes) or self.first.ndim != 1:
            return False
        own = np.arange(num_nodes)
        leaf = (self.left == own) & (self.right == own)
        on = np.minimum(self.left, self.right) > own  # further on, so that every row comes to an end
        within = np.maximum(self.left, self.right) < num_nodes
        known = (self.column >= 0) & (self.column < self.num_columns)
        finite = all(np.isfinite(one).all() for one in (self.start, self.threshold, self.value))
        starts = (self.first >= 0) & (self.first < num_nodes)
        return finite and bool(((leaf | on) & within & known).all() and starts.all())


def fitted_trees(columns: Values, true: Values) -> Trees:
    """Grow trees: the same ones from the same numbers, on any number of cores.

    Settings are scikit-learn's but for the leaves of a tree, 8 rather than 31: on few graphs as good, in half the
    time and space. Nothing is held out to stop early.

    Args:
        columns: (num_graphs, num_columns) finite.
        true: (num_graphs,) what they learn, DockQ say.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=NUM_TREES, max_leaf_nodes=LEAVES, early_stopping=False, random_state=SEED
    )
    model.fit(columns, true)
    first, parts = [], []
    num_nodes = 0
    for (predictor,) in model._predictors:
        first.append(num_nodes)
        parts.append(_lists(predictor.nodes, num_nodes))
        num_nodes += len(predictor.nodes)
    lists: Mapping[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in NODE_LISTS}
    start = float(np.ravel(model._baseline_prediction)[0])
    return Trees(columns.shape[1], start, np.array(first, dtype=np.intp), **lists)


def _lists(nodes: Any, offset: int) -> dict[str, Any]:
    """One tree's nodes, numbered from ``offset``."""
    own, leaf = np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
    sides = {side: np.where(leaf, own, nodes[side].astype(np.intp)) + offset for side in ("left", "right")}
    return {
        "column": np.where(leaf, 0, nodes["feature_idx"]).astype(np.intp),
        "threshold": np.where(leaf, 0.0, nodes["num_threshold"]),
        **sides,
        "value": np.where(leaf, nodes["value"], 0.0),
    }
