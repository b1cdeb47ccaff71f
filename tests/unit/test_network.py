"""The network against reference vectors, and the laws it has to obey."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from kit.graphs import packed_graphs
from topotrain.data.column_statistics import ColumnStatistics
from topotrain.errors import DataError
from topotrain.model.network import EdgeUpdate, NetworkSpec, TopoQANetwork
from topotrain.model.original import load_original, rename_original
from topotrain.model.scaling import InputScaling
from topotrain.schema.feature_schema import FeatureSchema

VECTORS = ("encoder_n172_e11_h8_add_noln", "encoder_n172_e24_h8_mean_ln", "flat_n172_e11_h8_mean")
SPEC = NetworkSpec(node_dim=5, edge_dim=3, attention_head=4, hidden_dim=8)
WHOLE = replace(
    SPEC,
    pooling_type="scaled_add",
    num_layers=1,
    node_dim=22,
    residue_columns=1,
    contact_term=True,
    derived_inputs=True,
    pooled_inputs=4,
    input_clamp=6.0,
    decorrelated_inputs=True,
)
SHAPES = {**{pooling: replace(SPEC, pooling_type=pooling) for pooling in ("mean", "add", "max")}, "whole": WHOLE}

# (x, edge_index, edge_attr) of one graph
Parts = tuple[Tensor, Tensor, Tensor]


def make_network(spec: NetworkSpec = SPEC, seed: int = 0) -> TopoQANetwork:
    torch.manual_seed(seed)
    network = TopoQANetwork(spec).double().eval()
    for name, buffer in network.named_buffers():
        if name in ("node_weight", "mean_size") or name.startswith("derived"):
            buffer.uniform_(0.5, 2)
    return network


def make_parts(num_nodes: int, num_edges: int, spec: NetworkSpec = SPEC, seed: int = 1) -> Parts:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num_nodes, spec.node_dim, generator=generator, dtype=torch.float64),
        torch.randint(0, num_nodes, (2, num_edges), generator=generator),
        torch.randn(num_edges, spec.edge_dim, generator=generator, dtype=torch.float64),
    )


def fit(scaling: InputScaling, values: Tensor) -> None:
    """Fit on (num_rows, width) values."""
    columns = ColumnStatistics.of(values)
    scaling.fit(columns.mean, columns.deviation)


def fit_scaling(network: TopoQANetwork, x: Tensor, edge_attr: Tensor) -> None:
    """Fit both scalings of a network."""
    fit(network.node_scaling, x)
    fit(network.edge_scaling, edge_attr)


def score(network: TopoQANetwork, *graphs: Parts) -> Tensor:
    """Scores of these graphs as one batch."""
    sizes = [x.shape[0] for x, _, _ in graphs]
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    return network(
        torch.cat([x for x, _, _ in graphs]),
        torch.cat([index + offset for (_, index, _), offset in zip(graphs, offsets, strict=True)], dim=1),
        torch.cat([attr for _, _, attr in graphs]),
        torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
        len(graphs),
    )


@pytest.mark.parametrize("name", VECTORS)
def test_reproduces_the_reference_vectors(shared_data, name):
    from safetensors import safe_open

    with safe_open(shared_data / "vectors" / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
        spec = json.loads(file.metadata()["spec"])
    weights = {k.removeprefix("weight."): v for k, v in tensors.items() if k.startswith("weight.")}
    network = load_original(weights, spec["pooling"]).eval()
    assert next(network.parameters()).dtype is torch.float64
    assert (network.spec.node_dim, network.spec.edge_dim) == (spec["node_dim"], spec["edge_dim"])
    y = tensors["y"]
    scores = network(tensors["x"], tensors["edge_index"], tensors["edge_attr"], tensors["batch"], len(y))
    assert (scores - tensors["expected"]).abs().max() < 1e-10
    loss = functional.mse_loss(scores, y)
    assert float(loss.detach()) == pytest.approx(spec["loss"], abs=1e-10)
    loss.backward()
    found = {key: parameter.grad for key, parameter in network.named_parameters()}
    expected = {k.removeprefix("grad."): v for k, v in tensors.items() if k.startswith("grad.")}
    assert len(expected) >= 15
    for key, gradient in rename_original(expected).items():
        assert gradient.abs().max() > 0, f"{key}: a gradient of zeros tests nothing"
        assert (found[key] - gradient).abs().max() < 1e-8, key


def test_every_weight_of_the_original_is_used_or_known_to_be_unused(shared_data):
    from safetensors import safe_open

    with safe_open(shared_data / "vectors" / f"{VECTORS[1]}.safetensors", "pt") as file:
        weights = {k.removeprefix("weight."): file.get_tensor(k) for k in file.keys() if k.startswith("weight.")}
    network = load_original(weights)
    learned = {name for name, _ in network.named_parameters()}
    assert set(rename_original(weights)) == learned
    short = {name: value for name, value in weights.items() if name != "fc1.weight"}
    with pytest.raises(DataError, match=r"fc1\.weight"):  # not left at its random start
        load_original(short)
    with pytest.raises(DataError, match="surprise"):
        load_original({**weights, "surprise": torch.zeros(1)})


def _pinned_network(spec: NetworkSpec) -> TopoQANetwork:
    """Weights from a formula, so that no random generator of any version matters."""
    network = TopoQANetwork(spec).double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            steps = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((torch.sin(1.7 * steps + number) * 0.4).view_as(parameter))
    return network


def _pinned_parts() -> Parts:
    x = torch.cos(torch.arange(20, dtype=torch.float64)).view(4, 5)
    edge_index = torch.tensor([[0, 1, 2, 3, 0, 2], [1, 0, 3, 2, 2, 2]])
    edge_attr = torch.sin(torch.arange(18, dtype=torch.float64)).view(6, 3)
    return x, edge_index, edge_attr


PINNED = {
    ("mean", True): 0.7317937264867593,
    ("add", True): 0.7752543351753691,
    ("max", True): 0.731546046714042,
    ("mean", False): 0.519598197211313,
}


@pytest.mark.parametrize(("pooling", "norm"), list(PINNED))
def test_pinned_scores(pooling, norm):
    network = _pinned_network(replace(SPEC, pooling_type=pooling, use_layer_norm=norm))
    assert score(network, _pinned_parts()).item() == pytest.approx(PINNED[pooling, norm], abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_node_order_does_not_matter(shape):
    network = make_network(SHAPES[shape])
    x, edge_index, edge_attr = make_parts(9, 20, network.spec)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    place = torch.argsort(order)
    moved = score(network, (x[order], place[edge_index], edge_attr))
    torch.testing.assert_close(moved, score(network, (x, edge_index, edge_attr)), rtol=0, atol=1e-12)
    # and the law can fail: rows moved without their edges give another score
    assert (score(network, (x[order], edge_index, edge_attr)) - moved).abs() > 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_edge_order_does_not_matter(shape):
    network = make_network(SHAPES[shape])
    x, edge_index, edge_attr = make_parts(9, 20, network.spec)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    moved = score(network, (x, edge_index[:, order], edge_attr[order]))
    torch.testing.assert_close(moved, score(network, (x, edge_index, edge_attr)), rtol=0, atol=1e-12)
    assert (score(network, (x, edge_index, edge_attr[order])) - moved).abs() > 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_edge_direction_matters(shape):
    network = make_network(SHAPES[shape])
    x, edge_index, edge_attr = make_parts(9, 20, network.spec)
    assert (
        score(network, (x, edge_index.flip(0), edge_attr)) - score(network, (x, edge_index, edge_attr))
    ).abs() > 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_alone_scores_as_in_a_batch(shape):
    network = make_network(SHAPES[shape])
    graphs = [make_parts(n, e, network.spec, seed=n) for n, e in ((6, 12), (1, 0), (9, 3), (4, 0), (3, 9))]
    together = score(network, *graphs)
    alone = torch.cat([score(network, graph) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(score(network, *graphs[::-1]), alone.flip(0), rtol=0, atol=1e-12)
    # Without edges (and self loops) all graphs score alike, unless the network sees how large they are.
    assert together.unique().numel() == len(graphs) - (shape != "whole")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_graph_without_edges_pools_to_zeros(shape, position):
    network = make_network(SHAPES[shape])
    graphs = [make_parts(6, 12, network.spec), make_parts(5, 8, network.spec, seed=2)]
    graphs.insert(position, make_parts(4, 0, network.spec, seed=3))
    pooled: list[Tensor] = []
    network.edge_readout.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0].detach()))
    scores = score(network, *graphs)
    assert torch.isfinite(scores).all()
    rows = pooled[0].abs().sum(dim=1)
    assert rows[position] == 0
    assert (rows > 0).sum() == 2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_without_any_edge(shape):
    network = make_network(SHAPES[shape])
    scores = score(network, make_parts(4, 0, network.spec), make_parts(1, 0, network.spec, seed=2))
    assert scores.shape == (2,)
    assert ((scores > 0) & (scores < 1)).all()


def test_isolated_nodes_count():
    network = make_network()
    x, edge_index, edge_attr = make_parts(6, 10, network.spec)
    lonely = torch.cat([x, torch.full((1, SPEC.node_dim), 2.0, dtype=torch.float64)])
    with_lonely = score(network, (lonely, edge_index, edge_attr))
    assert torch.isfinite(with_lonely).all()
    assert (with_lonely - score(network, (x, edge_index, edge_attr))).abs() > 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_every_graph_of_a_batch_is_in_the_loss(shape):
    network = make_network(SHAPES[shape])
    graphs = [
        make_parts(6, 12, network.spec),
        make_parts(5, 0, network.spec, seed=2),
        make_parts(4, 8, network.spec, seed=3),
        make_parts(7, 9, network.spec, seed=4),
    ]
    for x, _, _ in graphs:
        x.requires_grad_()
    y = torch.tensor([0.9, 0.1, 0.5, 0.0], dtype=torch.float64)
    y.requires_grad_()
    functional.mse_loss(score(network, *graphs), y).backward()
    assert (y.grad != 0).all()
    # Without edges (and self loops) nothing of a node reaches the score, but as a pooled column.
    assert [bool(x.grad.abs().sum() > 0) for x, _, _ in graphs] == [True, shape == "whole", True, True]


def test_the_module_s_loss_is_the_mean_over_every_graph():
    """The Lightning module, not a rewrite of it: loss and gradient against one graph at a time."""
    from topotrain.config import LossConfig, TrainConfig
    from topotrain.data.edge_layout import EdgeLayout
    from topotrain.data.packing import GraphBatch
    from topotrain.model.lightning import ScoringModule

    network = make_network().train()
    for layer in network.layers:
        layer.conv.dropout = 0.0
    none = packed_graphs([], FeatureSchema(node_dim=network.spec.node_dim, edge_dim=network.spec.edge_dim))
    module = ScoringModule(network, TrainConfig(loss=LossConfig(rank_weight=0)), none, none)
    graphs = [make_parts(6, 12), make_parts(5, 0, seed=2), make_parts(4, 8, seed=3)]
    y = torch.tensor([0.9, 0.1, 0.5], dtype=torch.float64)

    def batch(*which: int) -> GraphBatch:
        sizes = [graphs[i][0].shape[0] for i in which]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        edge_index = torch.cat([graphs[i][1] + start for i, start in zip(which, starts, strict=True)], dim=1)
        nodes = torch.repeat_interleave(torch.arange(len(which)), torch.tensor(sizes))
        order, layout = EdgeLayout.of(edge_index, nodes, len(which))
        return GraphBatch(
            torch.cat([graphs[i][0] for i in which]),
            edge_index[:, order],
            torch.cat([graphs[i][2] for i in which])[order],
            nodes,
            y[list(which)],
            torch.tensor(which),
            layout,
        )

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, network.node_embedding.weight)[0]

    whole = module.training_step(batch(0, 1, 2), 0)
    single = torch.stack([module.training_step(batch(i), i) for i in range(3)])
    assert float(whole.detach()) == pytest.approx(float(single.mean().detach()), abs=1e-14)
    torch.testing.assert_close(gradient(whole), gradient(single.mean()), rtol=0, atol=1e-14)


@pytest.mark.parametrize(("node_dim", "edge_dim"), [(55, 1), (172, 24), (1252, 2081), (1, 1)])
@pytest.mark.parametrize("norm", [True, False])
def test_any_width(node_dim, edge_dim, norm):
    spec = NetworkSpec(node_dim=node_dim, edge_dim=edge_dim, use_layer_norm=norm)
    network = make_network(spec)
    assert any(isinstance(part, torch.nn.LayerNorm) for part in network.modules()) is norm
    scores = score(network, make_parts(6, 12, spec), make_parts(3, 0, spec, seed=2))
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_the_shape_is_the_contract_s():
    """CONTRACT section 8, layer by layer, for the default size."""
    network = TopoQANetwork(NetworkSpec(node_dim=7, edge_dim=3))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["node_embedding.weight"] == (32, 7)
    assert [type(part).__name__ for part in network.edge_encoder] == ["Linear", "LayerNorm", "ReLU", "Linear"]
    assert shapes["edge_encoder.0.weight"] == (32, 3)
    assert shapes["edge_encoder.3.weight"] == (32, 32)
    assert shapes["layers.1.edge_update.linear.weight"] == (256, 96)
    assert shapes["edge_readout.weight"] == (16, 32)
    linear = [tuple(part.weight.shape) for part in network.head if isinstance(part, torch.nn.Linear)]
    assert linear == [(64, 48), (64, 64), (1, 64)]
    assert [layer.conv.dropout for layer in network.layers] == [0.25, 0.25]
    assert not any(layer.conv.add_self_loops or layer.conv.concat for layer in network.layers)
    assert {layer.conv.heads for layer in network.layers} == {8}


@pytest.mark.parametrize("hidden", [2, 6, 64])
def test_other_hidden_sizes(hidden):
    network = make_network(replace(SPEC, hidden_dim=hidden))
    linear = [tuple(part.weight.shape) for part in network.head if isinstance(part, torch.nn.Linear)]
    assert linear == [(2 * hidden, hidden + hidden // 2), (2 * hidden, 2 * hidden), (1, 2 * hidden)]
    assert score(network, make_parts(4, 6)).shape == (1,)


def test_scores_stay_in_range_for_wild_inputs():
    network = make_network()
    x, edge_index, edge_attr = make_parts(6, 12)
    scores = score(network, (x * 1e6, edge_index, edge_attr * -1e6), (x * -1e6, edge_index, edge_attr * 1e6))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_the_edge_update_is_the_mean_over_heads():
    torch.manual_seed(5)
    update = EdgeUpdate(hidden_dim=6, heads=4).double()
    x, edge_index, edge_attr = make_parts(5, 11, NetworkSpec(node_dim=6, edge_dim=6))
    source, target = edge_index
    literal = update.linear(torch.cat([x[source], x[target], edge_attr], dim=1)).view(11, 4, 6).mean(dim=1)
    torch.testing.assert_close(update(x, edge_index, edge_attr), literal, rtol=0, atol=1e-13)


def test_a_node_without_incoming_edges_gets_the_bias_alone():
    """No self loops: what reaches such a node is nothing but the convolution's bias."""
    network = make_network()
    conv = network.layers[0].conv
    torch.nn.init.normal_(conv.bias)
    nodes = torch.randn(3, SPEC.hidden_dim, dtype=torch.float64)
    edge_index = torch.tensor([[0, 1], [2, 2]])
    out = conv(nodes, edge_index, torch.randn(2, SPEC.hidden_dim, dtype=torch.float64))
    torch.testing.assert_close(out[:2], conv.bias.expand(2, -1))
    assert (out[2] - conv.bias).abs().max() > 1e-6


def test_dropout_acts_in_training_only():
    network = make_network()
    graph = make_parts(8, 30)
    assert torch.equal(score(network, graph), score(network, graph))
    network.train()
    torch.manual_seed(0)
    assert len({float(score(network, graph).detach()) for _ in range(4)}) > 1


def test_scaling_is_computed_in_float64():
    """A tiny spread on a huge offset: float32 sums of squares would lose it altogether."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(5000, 2, generator=generator, dtype=torch.float64) * 4.0
    values = (spread + torch.tensor([1e6, -1e6], dtype=torch.float64)).float()
    scaling = InputScaling(2)
    fit(scaling, values)
    exact = values.double()
    torch.testing.assert_close(scaling.mean.double(), exact.mean(0), rtol=1e-7, atol=0)
    torch.testing.assert_close(scaling.scale.double(), exact.std(0, unbiased=False), rtol=1e-6, atol=0)
    scaled = scaling(values).double()
    assert scaled.mean(0).abs().max() < 0.02  # the mean itself is rounded to float32
    assert (scaled.std(0) - 1).abs().max() < 1e-3


def test_scaling_sums_many_rows_without_drift():
    values = torch.full((2_000_000, 1), 0.1)
    scaling = InputScaling(1)
    fit(scaling, values)
    assert float(scaling.mean) == pytest.approx(float(values[0]), rel=1e-7)
    assert float(scaling.scale) == 1.0


@pytest.mark.parametrize(
    ("values", "constant"),
    [
        ([3.0, 3.0, 3.0], True),
        ([0.0, 0.0, 0.0], True),
        ([1e-8, -1e-8, 0.0], True),  # under 1e-6 x max(1, |mean|) = 1e-6
        ([1e-5, -1e-5, 0.0], False),
        ([1e6, 1e6 + 0.0625, 1e6], True),  # under 1e-6 x 1e6 = 1
        ([1e6, 1e6 + 8, 1e6 - 8], False),
        ([1e-30, 2e-30, 3e-30], True),
    ],
)
def test_which_columns_count_as_constant(values, constant):
    scaling = InputScaling(1)
    fit(scaling, torch.tensor(values).unsqueeze(1))
    assert (float(scaling.scale) == 1.0) is constant
    # elsewhere such a column stays as far from the mean as it is in raw units
    elsewhere = scaling(torch.tensor([[values[0] + 16.0]]))
    if constant:
        assert float(elsewhere) == pytest.approx(16.0, abs=0.2)


def test_a_column_constant_in_training_does_not_move_scores_far():
    network = make_network(seed=2)
    x, edge_index, edge_attr = make_parts(40, 60)
    x[:, 2] = 7.0
    edge_attr[:, 1] = 0.1 + 0.2  # a value whose mean rounds
    fit_scaling(network, x, edge_attr)
    other = x.clone()
    other[:, 2] = 7.01
    nearby = score(network, (other, edge_index, edge_attr))
    assert (nearby - score(network, (x, edge_index, edge_attr))).abs() < 0.01


def test_unfitted_scaling_is_the_identity():
    scaling = InputScaling(3)
    values = torch.randn(4, 3) * 100
    assert torch.equal(scaling(values), values)
    assert scaling(torch.zeros(0, 3)).shape == (0, 3)


def test_one_row_is_all_constant():
    scaling = InputScaling(2)
    fit(scaling, torch.tensor([[5.0, -2.0]]))
    assert scaling.scale.tolist() == [1.0, 1.0]
    assert scaling.mean.tolist() == [5.0, -2.0]


def test_scaling_is_carried_by_the_state_dict_and_leaves_the_input_alone():
    network = make_network()
    x, edge_index, edge_attr = make_parts(20, 30)
    raw = x.clone(), edge_attr.clone()
    fit_scaling(network, x * 50 + 3, edge_attr * 9 - 4)
    expected = score(network, (x, edge_index, edge_attr))
    assert torch.equal(x, raw[0])
    assert torch.equal(edge_attr, raw[1])
    again = make_network(seed=9)
    again.load_state_dict(network.state_dict())
    assert torch.equal(score(again, (x, edge_index, edge_attr)), expected)


def test_scaled_raw_features_score_as_standardised_ones():
    """A model takes raw features: raw through fitted scaling = standardised through the identity."""
    plain, fitted = make_network(), make_network()
    x, edge_index, edge_attr = make_parts(30, 50)
    raw_x, raw_edge = x * 200 + 40, edge_attr * 0.01 - 3
    fit_scaling(fitted, raw_x, raw_edge)

    def standard(values: Tensor) -> Tensor:
        return (values - values.mean(0)) / values.std(0, unbiased=False)

    expected = score(plain, (standard(raw_x), edge_index, standard(raw_edge)))
    torch.testing.assert_close(score(fitted, (raw_x, edge_index, raw_edge)), expected, rtol=0, atol=1e-9)
