"""What jobs ask of a machine: sizes, sums, what fits beside what runs, and which devices each is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from topotrain.batches import local_engine
from topotrain.batches.engine import Work
from topotrain.batches.local_engine import LocalEngine
from topotrain.batches.resources import UNBOUND, Resources, check_fits, size_in_bytes, this_machine, total
from topotrain.errors import ConfigError

GB = 10**9


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * GB), ("500MB", GB // 2), ("1.5 GB", 3 * GB // 2), ("2gib", 2**31), ("1KiB", 1024), ("3TB", 3000 * GB)],
)
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "2", "GB", "-2GB", "2GB more", "1e3GB", "\u0662GB", "0.0001KB", "2 PB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="500MB or 2GB"):
        size_in_bytes(text)


def test_what_is_not_given_is_not_counted() -> None:
    assert total([Resources(1, None, GB), UNBOUND, Resources(2, 1)]) == Resources(3, 1, GB)
    assert UNBOUND.within(Resources(0, 0, 0))
    assert Resources(2, 0, 2 * GB).lacking(Resources(1, 4, GB)) == ["cpus 2 of 1", "memory 2 GB of 1 GB"]
    here = this_machine(0)
    assert (here.cpus or 0) >= 1
    assert (here.memory or 0) > 10**8


def test_a_job_that_no_machine_has_room_for() -> None:
    machines = {"one": Resources(4, 0, 8 * GB), "two": Resources(2, 1, 8 * GB)}
    check_fits({"a": Resources(4), "b": Resources(2, 1), "c": UNBOUND}, machines)
    with pytest.raises(ConfigError, match=r"job 'b' asks for more than any of 2 nodes has \(gpus 1 of 0\); expected"):
        check_fits({"a": UNBOUND, "b": Resources(4, 1)}, machines)
    with pytest.raises(ConfigError, match=r"job 'a' asks for more than this machine has \(cpus 9 of 8\)"):
        check_fits({"a": Resources(9)}, {"this machine": Resources(8)})


class Sleeping:
    """In place of a process."""

    def __init__(self, work: Work, environment: dict[str, str], folder: Path) -> None:
        self.resources, self.environment, self.gpus, self.status = work.resources, environment, [], None

    def poll(self) -> int | None:
        return self.status


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalEngine:
    """Of a machine with 4 cores, 3 GPUs, and 10 GB."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,GPU-7")
    monkeypatch.setattr(local_engine, "this_machine", lambda gpus: Resources(4, gpus, 10 * GB))
    monkeypatch.setattr(local_engine, "JobProcess", Sleeping)
    return LocalEngine("sqlite:///x.db", tmp_path, 3)


def submit(engine: LocalEngine, **asked: int) -> Any:
    return engine.submit(Work("a", ("run",), resources=Resources(**asked)))


def test_what_runs_leaves_so_much_room(engine: LocalEngine) -> None:
    assert engine.has_room(0, Resources(4, 3, 10 * GB))
    assert not engine.has_room(0, Resources(5))
    first = submit(engine, cpus=3, memory=4 * GB)
    assert engine.has_room(1, Resources(1, None, 6 * GB))
    assert engine.has_room(1), "what asks for nothing is bound by --jobs alone"
    assert not engine.has_room(3)
    assert not engine.has_room(1, Resources(2))
    assert not engine.has_room(1, Resources(1, None, 7 * GB))
    first.status = 0
    assert engine.has_room(0, Resources(4, None, 10 * GB))
    assert (engine.cores_of(Resources(4)), engine.cores_of(UNBOUND) >= 1) == (4, True)


def test_jobs_get_devices_of_their_own(engine: LocalEngine) -> None:
    first, second, none, any_of_them = (
        submit(engine, **asked) for asked in ({"gpus": 1}, {"gpus": 2}, {"gpus": 0}, {})
    )
    seen = [one.environment["CUDA_VISIBLE_DEVICES"] for one in (first, second, none, any_of_them)]
    assert seen == ["0", "2,GPU-7", "", "0,2,GPU-7"]
    first.status = 0
    assert submit(engine, gpus=1).environment["CUDA_VISIBLE_DEVICES"] == "0"
    engine.check({"a": Resources(gpus=3)}, {}, [])
    with pytest.raises(ConfigError, match="gpus 4 of 3"):
        engine.check({"a": Resources(gpus=4)}, {}, [])
