"""Which process is which, what each computes of a batch, and what they tell each other."""

from __future__ import annotations

import random

import pytest
import torch

from kit.graphs import GraphSet, write_graph_set
from topotrain.config import load_config
from topotrain.data.edge_layout import Share
from topotrain.data.prepare import prepare_data
from topotrain.data.sharing import Seat, share_of
from topotrain.errors import ConfigError, DataError
from topotrain.model.attention import dropout_mask
from topotrain.training.crew import place_of
from topotrain.training.ranks import Meeting, Place, outer_place

SLURM = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_NODEID": "1",
    "SLURM_NODELIST": "node[07-08]",
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NAME": "train",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "GROUP_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "node07",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def environment(monkeypatch):
    def become(values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    for name in ("MASTER_ADDR", "MASTER_PORT"):  # Lightning writes what it works out
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return become


def test_a_process_that_srun_started_knows_its_place(environment):
    environment(SLURM)
    assert outer_place() == Place(6, 8, 2, 1, "node07", 18456, "srun")


def test_a_process_that_torchrun_started_knows_its_place(environment):
    environment(TORCHRUN)
    assert outer_place() == Place(3, 4, 1, 1, "node07", 29500, "torchrun")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},
        {**TORCHRUN, "WORLD_SIZE": "1"},
    ],
    ids=["alone", "in a job's script, without srun", "a step of one", "torchrun of one"],
)
def test_a_process_that_was_started_alone_is_alone(environment, values):
    environment(values)
    assert outer_place() is None
    assert place_of(1, 1) is None
    assert place_of(2, 1) == Place(0, 2)


@pytest.mark.parametrize(
    ("values", "num_ranks", "num_nodes", "said"),
    [
        ({}, 4, 2, "this process is alone, and trainer.num_nodes is 2; expected a process for each device"),
        (
            SLURM,
            2,
            1,
            "srun started 8 processes, and trainer.devices and trainer.num_nodes ask for 2; expected as many",
        ),
        (SLURM, 8, 2, "this process is rank 6 of those that srun started; expected rank 0, which records the run"),
    ],
)
def test_others_than_were_asked_for_are_one_line(environment, values, num_ranks, num_nodes, said):
    environment(values)
    with pytest.raises(ConfigError) as caught:
        place_of(num_ranks, num_nodes)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("num_graphs", [1, 2, 3, 7, 16])
def test_every_graph_of_a_batch_is_computed_once(size, num_graphs):
    edges = [random.Random(num_graphs).randrange(50) for _ in range(num_graphs)]
    shares = [share_of(range(num_graphs), edges, edges, Seat(rank, size)) for rank in range(size)]
    own = [taken[: share.num_own] for taken, share in shares]
    assert sorted(place for taken in own for place in taken) == list(range(num_graphs))
    assert max(map(len, own)) - min(map(len, own)) <= 1
    assert all(taken for taken, _ in shares), "nobody is left without something to compute"
    assert {(share.num_graphs, share.num_edges) for _, share in shares} == {(num_graphs, sum(edges))}


def test_shares_are_about_equally_large():
    edges = list(range(100, 1700, 100))
    totals = [sum(edges[place] for place in share_of(range(15), edges, edges, Seat(rank, 2))[0]) for rank in range(2)]
    assert max(totals) / min(totals) < 1.02


def test_dropout_falls_on_the_same_edges_whoever_computes_them():
    edges, heads = [5, 3, 9, 0, 4], 2
    torch.manual_seed(1)
    whole = dropout_mask(sum(edges), heads, 0.5, torch.zeros(1))
    found = torch.full_like(whole, -1.0)
    for rank in range(2):
        _, share = share_of(range(5), edges, edges, Seat(rank, 2))
        torch.manual_seed(1)
        found[share.edges] = dropout_mask(len(share.edges), heads, 0.5, torch.zeros(1), share)
    assert torch.equal(found, whole)
    assert isinstance(share, Share)


def test_parts_of_a_batch_hold_its_graphs(tmp_path):
    write_graph_set(tmp_path / "set")
    data = prepare_data(load_config(None, GraphSet(tmp_path / "set").overrides).config).module
    positions = [3, 0, 7, 5, 1]
    whole = data.train.batch(positions)
    parts = [data.train.part(positions, Seat(rank, 2)) for rank in range(2)]
    assert sorted(i for part in parts for i in part.index.tolist()) == sorted(positions)
    for part in parts:
        share = part.layout.share
        assert share.num_edges == whole.edge_index.shape[1]
        assert len(share.edges) == part.edge_index.shape[1]
        starts = whole.layout.edge_start
        expected = torch.cat([torch.arange(starts[p], starts[p + 1]) for p in share.graphs.tolist()])
        assert torch.equal(share.edges, expected)
        assert share.num_nodes == len(whole.x)
        assert torch.equal(whole.x[share.nodes], part.x)
        assert torch.equal(share.index, whole.index)
        assert torch.equal(share.index[share.graphs], part.index)


def test_who_has_no_graph_of_its_own_says_whose_it_takes():
    taken, share = share_of([4, 2], [9, 9, 3, 9, 5], [9, 9, 8, 9, 6], Seat(2, 3))
    assert (taken, share.num_own, share.graphs.tolist()) == ([0], 0, [0])
    assert (share.num_nodes, share.nodes.tolist()) == (8, list(range(5)))
    assert (share.num_edges, share.edges.tolist()) == (14, list(range(6)))


def test_rank_0_hears_why_another_fails():
    first = Meeting(Place(0, 3))
    second = Meeting(Place(1, 3, 1, port=first.place.port))
    third = Meeting(Place(2, 3, 2, port=first.place.port))
    assert first.failure() is None
    second.failed(RuntimeError("Connection closed by peer"))
    third.failed(DataError("graphs: other ones", "the same on every machine"))
    assert str(first.failure()) == "rank 2: graphs: other ones; expected the same on every machine"
