"""One writer at a time: a run's lease, without the lock of one machine, and with it."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kit.dying import DEAD
from kit.recorded import experiment_id, mlflow_client
from topotrain.errors import TrackingError
from topotrain.fields import TAG_HEARTBEAT, TAG_LEASE
from topotrain.tracking import lease as lease_module
from topotrain.tracking.heartbeat import is_alive, sign_of_life
from topotrain.tracking.lease import Lease
from topotrain.tracking.runs import run_record


@pytest.fixture
def without_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every process were on a machine of its own."""
    monkeypatch.setattr(lease_module, "lock_here", lambda run_id, force=False: None)


@pytest.fixture
def run(store_uri: str) -> tuple[Any, str]:
    """A client and a run that nobody holds."""
    client = mlflow_client(store_uri)
    return client, client.create_run(experiment_id(client, store_uri, "e")).info.run_id


def held(client: Any, run_id: str) -> list[str]:
    return [name for name in client.get_run(run_id).data.tags if name.startswith(TAG_LEASE)]


@pytest.mark.parametrize("rounds", [8])
def test_of_many_that_ask_at_once_one_gets_it(run: Any, without_lock: None, rounds: int) -> None:
    client, run_id = run
    for _ in range(rounds):
        gate, got, refused = threading.Barrier(6), [], []

        def ask(gate: Any = gate, got: Any = got, refused: Any = refused) -> None:
            gate.wait()
            try:
                got.append(Lease.take(client, run_id))
            except TrackingError as error:
                refused.append(str(error))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        assert len(refused) == 5
        assert all("is still being trained" in line for line in refused)
        assert held(client, run_id) == [TAG_LEASE + got[0].writer]
        got[0].release()
        assert held(client, run_id) == []


def test_on_one_machine_the_lock_decides_before_the_server_is_asked(run: Any) -> None:
    client, run_id = run
    first = Lease.take(client, run_id)
    with pytest.raises(TrackingError, match="on this machine"):
        Lease.take(client, run_id)
    assert len(held(client, run_id)) == 1
    second = Lease.take(client, run_id, force=True)
    second.take_over()
    assert held(client, run_id) == [TAG_LEASE + second.writer]
    assert not first.check()
    second.release()
    first.release()


def sign(ago: int = 0, **changed: Any) -> str:
    time = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
    return json.dumps({**sign_of_life(), "held": True, "time": time, **changed})


SIGNS = {
    "this process": ({}, True),
    "this process, which only asks": ({"held": False}, True),
    "another process of this machine": ({"pid": 2**22}, False),
    "one that was given its number": ({"process_start": 1.0}, False),
    "another machine": ({"host": "another"}, True),
    "another machine, two beats ago": ({"host": "another", "ago": 80}, True),
    "another machine, long ago": ({"host": "another", "ago": 100}, False),
    "a sign that is none": ({"pid": "x", "process_start": None}, False),
    "no JSON": ("no JSON", False),
    "a list": ("[1]", False),
}


@pytest.mark.parametrize(("changed", "alive"), SIGNS.values(), ids=SIGNS)
def test_who_counts_as_alive(run: Any, without_lock: None, changed: Any, alive: bool) -> None:
    """A process of this machine as long as it runs, of another for three missed beats; signs that are none, never."""
    client, run_id = run
    claim = changed if isinstance(changed, str) else sign(**changed)
    client.set_tag(run_id, f"{TAG_LEASE}0", claim)
    client.set_tag(run_id, TAG_HEARTBEAT, json.dumps({**DEAD, "writer": "0"}))
    assert is_alive(run_record(client.get_run(run_id))) == alive
    if alive:
        with pytest.raises(TrackingError, match="is still being trained by process"):
            Lease.take(client, run_id)
        assert held(client, run_id) == [f"{TAG_LEASE}0"], "who was refused leaves nothing"
    else:
        lease = Lease.take(client, run_id)
        assert f"{TAG_LEASE}0" in held(client, run_id), "until its work is gone on with"
        lease.take_over()
        lease.release()
        assert [name for name in held(client, run_id) if claim.startswith("{") or name != f"{TAG_LEASE}0"] == []


def test_a_run_of_before_there_were_leases(run: Any, without_lock: None) -> None:
    client, run_id = run
    client.set_tag(run_id, TAG_HEARTBEAT, json.dumps(sign_of_life()))
    with pytest.raises(TrackingError, match="is still being trained"):
        Lease.take(client, run_id)
    client.set_tag(run_id, TAG_HEARTBEAT, json.dumps(DEAD))
    Lease.take(client, run_id).release()


def test_a_beat_that_finds_the_lease_taken_says_so(run: Any, without_lock: None, monkeypatch: Any) -> None:
    monkeypatch.setattr("topotrain.tracking.heartbeat.INTERVAL_SECONDS", 0.02)
    client, run_id = run
    first = Lease.take(client, run_id)
    assert first.check()
    second = Lease.take(client, run_id, force=True)
    second.take_over()
    first._heartbeat._thread.join(10)
    assert first.lost
    assert not first.check()
    assert held(client, run_id) == [TAG_LEASE + second.writer]
    second.release()
