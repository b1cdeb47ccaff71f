"""Many writers: processes on one fresh SQLite file, and trainings on one server with a kill and an outage each."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from kit.servers import Server
from soak.ground import Ground, Process, Target
from soak.kills import Life, life


def fresh_file(ground: Ground, target: Target, writers: int) -> list[str]:
    """Start trainings at once on a database that is not there yet; returns what is wrong."""
    folder = ground.place("fresh").root
    folder.mkdir(parents=True)
    uri, places = f"sqlite:///{folder / 'mlflow.db'}", [ground.place(f"writer-{number}") for number in range(writers)]
    started = [Process(ground.training(uri), place) for place in places]
    faults = []
    for place, process in zip(places, started, strict=True):
        try:
            assert process.wait() == 0, process.err
            target.check(process.out.strip(), uri)
            assert place.left() == [], place.left()
        except Exception as error:  # noqa: BLE001 (all are looked at, then told)
            faults.append(f"{type(error).__name__}: {error}")
    return faults


def trainings(ground: Ground, target: Target, server: Server, seed: int, count: int, at_once: int) -> Sequence[Life]:
    """Trainings on one server, each behind a network of its own that fails, and each killed."""

    def one(number: int) -> Life:
        return life(ground, target, seed, f"writer-{number}", 1, server=server, certain=True)

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(count)))
