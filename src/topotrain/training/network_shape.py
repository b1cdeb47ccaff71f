"""The shape of the network that a run trains: widths from the schema, the rest from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from topotrain.config import TrainConfig
from topotrain.errors import ConfigError
from topotrain.model.contact_potential import residue_columns
from topotrain.model.network import NetworkSpec
from topotrain.schema.feature_schema import FeatureSchema

# Of a network's spec: changes no shape and no score.
FREE = frozenset({"dropout", "pooled_inputs_dropout", "embedding_dropout", "head_dropout"})


def network_spec(schema: FeatureSchema, config: TrainConfig) -> NetworkSpec:
    """Widths from the schema, everything else from the configuration."""
    model = config.model
    return NetworkSpec(
        node_dim=schema.node_dim,
        edge_dim=schema.edge_dim,
        pooling_type=model.pooling_type,
        attention_head=model.attention_head,
        hidden_dim=model.hidden_dim,
        num_layers=model.num_layers,
        dropout=model.dropout,
        use_layer_norm=schema.use_layer_norm,
        residue_columns=residue_columns(schema.node_columns) if model.contact_potential else None,
        contact_term=model.contact_term,
        derived_inputs=model.derived_inputs,
        pooled_inputs=model.pooled_inputs,
        pooled_inputs_dropout=model.pooled_inputs_dropout,
        embedding_dropout=model.embedding_dropout,
        head_dropout=model.head_dropout,
        input_clamp=model.input_clamp if model.input_scaling != "none" else None,
        decorrelated_inputs=model.input_scaling == "decorrelated",
    )


def check_network(content: Mapping[str, Any], config: TrainConfig) -> None:
    """Refuse a configuration that asks for another network than a checkpoint's, before any graph is read.

    Raises:
        ConfigError: both sides are shown.
    """
    schema = FeatureSchema.from_dict(content["feature_metadata"])
    asked = replace(network_spec(schema, config), use_layer_norm=config.edge_schema.use_layer_norm)
    check_shape(NetworkSpec(**content["model_hyperparameters"]), asked)


def check_shape(stored: NetworkSpec, asked: NetworkSpec) -> None:
    """Refuse a network of another shape.

    Raises:
        ConfigError: both sides are shown.
    """
    old, new = asdict(stored), asdict(asked)
    changed = [key for key in old if key not in FREE and old[key] != new[key]]
    if changed:
        shown = ", ".join(f"{key} is {old[key]} in the checkpoint and {new[key]} here" for key in changed)
        raise ConfigError(f"the network has another shape: {shown}", "the same shape", "train a new run for another")
