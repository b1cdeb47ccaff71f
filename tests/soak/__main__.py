"""The attack on "a run can't be lost", in its long form: ``make soak``.

Trainings are killed, their servers fail, many processes want the same run: each time what is left in the end is held
against a run that nothing disturbed. Prints how far it is, writes the figures as JSON, ends with status 1 where
anything was lost, doubled or left behind. The same seed draws the same moments.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from soak import many_writers, one_writer, outages
from soak.ground import Ground, median
from soak.kills import Life, life
from soak.recording import recording

KILLS_OF_A_LIFE = 8
PLAIN_EVERY = 6  # lives; these start an interpreter for each process
LENGTHS = (4.0, 12.0)  # seconds, of outages
AT_THE_EDGES = ("silent", "deaf", "killed", "frozen")  # kinds of outages at the beginning and at the end of a run


class Soak:
    """All parts, and what came out of them.

    Args:
        ground: to stand on.
        seed: of every chance.
        size: 1 for the figures of docs/reliability.md; less is faster, more is harder.
    """

    def __init__(self, ground: Ground, seed: int, size: float) -> None:
        self.ground, self.seed, self.size = ground, seed, size
        self.figures: dict[str, Any] = {}
        self.faults: list[str] = []
        self.begun = time.monotonic()

    def say(self, line: str) -> None:
        """How far it is."""
        print(f"{time.monotonic() - self.begun:5.0f} s  {line}", file=sys.stderr, flush=True)

    def count(self, most: int, least: int = 1) -> int:
        """So many, at this size."""
        return max(least, round(most * self.size))

    def found(self, what: str, fault: str) -> None:
        """Note what is wrong, if anything is."""
        if fault:
            self.faults.append(f"{what}: {fault}")
            self.say(f"FAULT  {what}: {fault}")

    def outages(self) -> None:
        """One after another, so that the pace is that of the machine."""
        ground, server = self.ground, self.ground.server()
        graphs = outages.epochs_of_a_fifth(ground)
        target = ground.target("server", server.address, recipe=outages.RECIPE, graphs=graphs)
        failing, rows = outages.Failing(server), []
        short, longer = LENGTHS
        plan = [(kind, "training", short) for kind in outages.KINDS]
        plan += [(kind, "training", longer) for kind in ("refuse", "silent", "frozen")]
        plan += [(kind, moment, short) for kind in AT_THE_EDGES for moment in ("start-up", "registering")]
        if self.size < 1:
            plan = random.Random(self.seed).sample(plan, self.count(len(plan)))
        for kind, moment, seconds in plan:
            row = outages.outage(ground, target, failing, kind, moment, seconds)
            rows.append(row)
            pace = f", epochs of {row.before:.2f} s, {row.during:.2f} s meanwhile" if row.during else ""
            self.say(f"outage: {kind} for {seconds:g} s in {moment}{pace}")
            self.found(f"outage {kind} in {moment}", row.fault)
        failing.proxy.stop()
        ratios = [row.during / row.before for row in rows if row.during]
        self.figures["outages"] = {
            "made": len(rows),
            "kinds": len({row.kind for row in rows}),
            "epoch_seconds": median([row.before for row in rows]),
            "pace": {"median": median(ratios), "least": min(ratios), "most": max(ratios)} if ratios else {},
            "rows": [asdict(row) for row in rows],
        }

    def stops(self) -> None:
        """SIGTERM while the server is away."""
        ground, server = self.ground, self.ground.server()
        graphs = outages.epochs_of_a_fifth(ground)
        target = ground.target("server", server.address, recipe=outages.RECIPE, graphs=graphs)
        failing, stops = outages.Failing(server), dict[str, float]()
        for kind in ("refuse", "silent", "frozen")[: self.count(3)]:
            stops[kind], fault = outages.stopped(ground, target, failing, kind)
            self.say(f"SIGTERM while the server is away ({kind}): {stops[kind]:.2f} s")
            self.found(f"SIGTERM, {kind}", fault)
        failing.proxy.stop()
        self.figures["stopped_seconds"] = stops

    def kills(self) -> None:
        """Lives, two at a time, until there are enough kills."""
        ground, server = self.ground, self.ground.server()
        on_server = ground.target("server", server.address)
        on_sqlite = ground.target("sqlite", ground.sqlite())
        wanted, done = self.count(220, 4), list[Life]()

        def one(number: int) -> Life:
            plain = number % PLAIN_EVERY == PLAIN_EVERY - 1
            if number % 2:
                return life(ground, on_sqlite, self.seed, f"life-{number}", KILLS_OF_A_LIFE, own=True, plain=plain)
            failing = server if number % 4 else None
            return life(ground, on_server, self.seed, f"life-{number}", KILLS_OF_A_LIFE, server=failing, plain=plain)

        with ThreadPoolExecutor(2) as pool:
            numbers = iter(range(10**6))
            while sum(sum(each.kills.values()) for each in done) < wanted:
                for each in pool.map(one, [next(numbers) for _ in range(4)]):
                    done.append(each)
                    self.found(each.name, each.fault)
                self.say(f"kills: {sum(sum(each.kills.values()) for each in done)} of {wanted}, {len(done)} runs")
        phases: Counter[str] = sum((each.kills for each in done), Counter())
        self.figures["kills"] = {
            "kills": phases.total(),
            "runs": len(done),
            "phases": dict(sorted(phases.items())),
            "begun_anew": sum(each.begun_anew for each in done),
            "outages": sum(each.outages for each in done),
            "faults": sum(bool(each.fault) for each in done),
        }

    def one_writer(self) -> None:
        """Rounds of each kind, on a server with users apart and on SQLite."""
        ground, dice = self.ground, random.Random(self.seed)
        server = ground.server()
        targets = [ground.target("server", server.address), ground.target("sqlite", ground.sqlite())]
        rows: dict[str, Counter[str]] = {}
        for rounds, what, contenders in (
            (self.count(20, 2), "resumes", 8),
            (self.count(5), "syncs", 4),
            (self.count(5), "batches", 4),
        ):
            for number in range(rounds):
                for target in targets:
                    apart, name = target.kind == "server", f"{target.kind}-{number}"
                    if what == "resumes":
                        row = one_writer.resumes(ground, target, dice, name, contenders, apart=apart)
                    else:
                        row = getattr(one_writer, what)(ground, target, name, contenders, apart=apart)
                    kept = rows.setdefault(f"{row.contenders} x {row.what}, {target.kind}", Counter())
                    kept.update(rounds=1, won_by_one=row.won == 1, late=row.late, faults=bool(row.fault))
                    self.found(f"{row.what}, {target.kind}", row.fault)
            self.say(f"one writer: {rounds} rounds of {contenders} {what} on each store")
        self.figures["one_writer"] = {name: dict(row) for name, row in rows.items()}

    def many_writers(self) -> None:
        """One fresh file, one server."""
        ground, count = self.ground, self.count(16, 4)
        server = ground.server()
        on_file, on_server = ground.target("sqlite", ground.sqlite()), ground.target("server", server.address)
        faults = many_writers.fresh_file(ground, on_file, 8)
        self.say("many writers: 8 trainings on one fresh SQLite file")
        self.found("a fresh file", "\n".join(faults))
        done = many_writers.trainings(ground, on_server, server, self.seed, count, at_once=count)
        for each in done:
            self.found(each.name, each.fault)
        self.say(f"many writers: {count} trainings on one server, each killed and each through an outage")
        self.figures["many_writers"] = {
            "on_one_file": 8,
            "file_faults": len(faults),
            "on_one_server": count,
            "kills": sum(sum(each.kills.values()) for each in done),
            "outages": sum(each.outages for each in done),
            "server_faults": sum(bool(each.fault) for each in done),
        }

    def recording(self) -> None:
        """What recording costs an epoch."""
        self.figures["recording"] = recording(self.ground, self.count(3))
        self.say(f"recording: {self.figures['recording']}")


PARTS: dict[str, Callable[[Soak], None]] = {
    "recording": Soak.recording,
    "outages": Soak.outages,
    "stops": Soak.stops,
    "one-writer": Soak.one_writer,
    "many-writers": Soak.many_writers,
    "kills": Soak.kills,
}


def machine() -> str:
    """In plain words."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    memory = psutil.virtual_memory().total / 1e9
    return f"{os.cpu_count()} cores of {name}, {memory:.0f} GB of memory, Python {platform.python_version()}"


def folder_of(kept: Path | None) -> Iterator[Path]:
    """The folder that was asked for, which stays, or a temporary one."""
    if kept is not None:
        yield kept.absolute()
        return
    name = Path(tempfile.mkdtemp(prefix="soak-"))
    yield name
    shutil.rmtree(name, ignore_errors=True)


def main() -> None:
    """Attack, and write what came out."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--seed", type=int, default=1, help="of every chance (%(default)s)")
    parser.add_argument("--size", type=float, default=1.0, help="of everything: 0.1 for minutes (%(default)s)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the figures here")
    parser.add_argument("--workdir", type=Path, default=None, help="an empty folder, which stays; by default none does")
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    for root in folder_of(given.workdir):
        with Ground(root) as ground:
            soak = Soak(ground, given.seed, given.size)
            for part in given.parts or PARTS:
                PARTS[part](soak)
                _write(given, soak)
        if soak.faults:
            sys.exit(f"{len(soak.faults)} faults; what they left is in {root}")


def _write(given: argparse.Namespace, soak: Soak) -> None:
    """The figures so far, beside those of parts that were measured before."""
    if given.json is None:
        return
    before = json.loads(given.json.read_text())["figures"] if given.json.exists() else {}
    content = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "seed": given.seed,
        "size": given.size,
        "figures": {**before, **soak.figures},
        "faults": soak.faults,
    }
    given.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
