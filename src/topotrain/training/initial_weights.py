"""Weights that a new run begins with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topotrain.fields import TAG_RESUMED_CHECKPOINT, TAG_RESUMED_FROM
from topotrain.model.checkpoint import network_of, read_checkpoint
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.schema.check import check_fits
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.load import load_scorer
from topotrain.tracking.artifacts import checkpoint_of_uri
from topotrain.tracking.store import Store
from topotrain.training.network_shape import check_shape


@dataclass(frozen=True)
class InitialWeights:
    """A trained network that another run begins with.

    Attributes:
        source: as the user named it.
        network: its weights and input scaling.
        schema: what it was trained on.
        run_id: the run that made it, where that is known.
    """

    source: str
    network: TopoQANetwork
    schema: FeatureSchema
    run_id: str | None

    @property
    def lineage(self) -> dict[str, str]:
        """Tags that say where the weights came from."""
        return {TAG_RESUMED_FROM: self.run_id or self.source, TAG_RESUMED_CHECKPOINT: self.source}

    def check(self, spec: NetworkSpec, schema: FeatureSchema) -> None:
        """Hold the network and the graphs of a new run against it.

        Raises:
            SchemaError: the graphs have other features than it was trained on.
            ConfigError: the configuration asks for another shape.
        """
        check_fits(
            *(self.schema, schema, "the graph directory"),
            of="weights",
            beside="graphs",
            wanted=f"graphs with the features of {self.source}",
            do="build those, or leave out --resume-from",
        )
        check_shape(self.network.spec, spec)


def load_initial_weights(source: str, store: Callable[[], Store]) -> InitialWeights:
    """Load a checkpoint or a model version, without running anything they say.

    Args:
        source: the path of a checkpoint, ``runs:/ID/checkpoints/NAME``, or ``models:/NAME@alias`` and the like.
        store: gives the one that holds it, if it is no file.

    Raises:
        TrackingError: the store holds no such checkpoint or model.
        DataError: it is none of topotrain's.
    """
    if source.startswith("models:/"):
        scorer, version = load_scorer(source, store()), store().versions.of_uri(source)
        return InitialWeights(source, scorer.network.float(), scorer.schema, version.run_id if version else None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(source)
        if source.startswith("runs:/"):
            path = store().artifacts.fetch(checkpoint_of_uri(source), Path(folder))
        content = read_checkpoint(path)
    network, schema = network_of(content)
    return InitialWeights(source, network, schema, content.get("run_id"))
