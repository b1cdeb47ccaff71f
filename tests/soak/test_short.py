"""The attacks in their short form; ``make soak`` is the long one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from soak import many_writers, one_writer, outages
from soak.ground import Ground, Target
from soak.kills import life

pytestmark = [pytest.mark.server, pytest.mark.long]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, quick_python: str) -> Iterator[Ground]:
    with Ground(tmp_path_factory.mktemp("soak"), quick_python) as one:
        yield one


@pytest.fixture(scope="module")
def failing(ground: Ground) -> Iterator[outages.Failing]:
    one = outages.Failing(ground.server())
    yield one
    one.proxy.stop()


@pytest.fixture(scope="module")
def on_server(ground: Ground, failing: outages.Failing) -> Target:
    return ground.target("server", failing.server.address)


@pytest.fixture(scope="module")
def on_sqlite(ground: Ground) -> Target:
    return ground.target("sqlite", ground.sqlite())


def test_killed_on_sqlite(ground: Ground, on_sqlite: Target) -> None:
    done = life(ground, on_sqlite, 1, "short-a", 3, own=True)
    assert not done.fault, done.fault


def test_killed_on_a_server_that_fails(ground: Ground, on_server: Target, failing: outages.Failing) -> None:
    done = life(ground, on_server, 1, "short-b", 3, server=failing.server, certain=True)
    assert not done.fault, done.fault
    assert done.kills.total() >= 1
    assert done.outages >= 1


@pytest.mark.parametrize("number", range(2))
def test_of_eight_that_go_on_with_a_run_one_does(ground: Ground, on_server: Target, number: int) -> None:
    done = one_writer.resumes(ground, on_server, random.Random(number), f"short-{number}", 8, apart=True)
    assert not done.fault, done.fault


def test_of_three_that_deliver_a_journal_one_does(ground: Ground, on_server: Target) -> None:
    done = one_writer.syncs(ground, on_server, "short", 3, apart=True)
    assert not done.fault, done.fault


def test_of_three_that_go_on_with_a_batch_one_does(ground: Ground, on_sqlite: Target) -> None:
    done = one_writer.batches(ground, on_sqlite, "short", 3, apart=False)
    assert not done.fault, done.fault


def test_four_on_one_fresh_file(ground: Ground, on_sqlite: Target) -> None:
    assert many_writers.fresh_file(ground, on_sqlite, 4) == []


def test_a_server_that_is_frozen(ground: Ground, failing: outages.Failing) -> None:
    """One outage of the long form, on a recipe of a few epochs."""
    target = ground.target("server", failing.server.address, recipe=outages.SHORT)
    done = outages.outage(ground, target, failing, "frozen", "start-up", 2.0, recipe=outages.SHORT)
    assert not done.fault, done.fault
