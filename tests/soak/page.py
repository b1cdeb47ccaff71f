"""The table of docs/reliability.md, from the figures of ``make soak``: ``python -m soak.page soak.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- end of the figures -->"


def figures(content: Mapping[str, Any]) -> str:
    """As Markdown."""
    found = content["figures"]
    rows = [*_kills(found), *_outages(found), *_one_writer(found), *_many_writers(found), *_recording(found)]
    about = f"{content['date']}, seed {content['seed']}, size {content['size']:g}, on {content['machine']}."
    lines = ["| attack | made | what came out |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([about, "", *lines])


def _kills(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    kills = found.get("kills")
    if not kills:
        return []
    total = (
        "SIGKILL, then `resume` or `sync` until done",
        f"{kills['kills']} kills in {kills['runs']} runs",
        f"{kills['faults']} runs differed from the undisturbed one; {kills['outages']} outages beside the kills",
    )
    return [total, *((f"- {phase}", str(number), "") for phase, number in kills["phases"].items())]


def _outages(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    outages = found.get("outages")
    if not outages:
        return []
    rows, pace = outages["rows"], outages["pace"]
    wrong = sum(bool(row["fault"]) for row in rows)
    lengths = sorted({row["seconds"] for row in rows})
    span = f"{lengths[0]:g} to {lengths[-1]:g} s"
    result = [("outages of a server", f"{len(rows)}, {span}", f"{wrong} runs differed from the undisturbed one")]
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault(row["kind"], []).append(row)
    for kind, some in by_kind.items():
        moments = ", ".join(f"{row['moment']} {row['seconds']:g} s" for row in some)
        ratios = [f"{100 * (row['during'] / row['before'] - 1):+.0f} %" for row in some if row["during"]]
        shown = f"epochs meanwhile {', '.join(ratios)}" if ratios else ""
        result.append((f"- {kind}", moments, shown))
    if pace:
        middle, least, most = (f"{100 * (pace[one] - 1):+.0f}" for one in ("median", "least", "most"))
        epochs = f"epochs of {outages['epoch_seconds']:.2f} s"
        result.append(("pace of epochs during an outage", epochs, f"{middle} % ({least} to {most})"))
    for kind, seconds in found.get("stopped_seconds", {}).items():
        result.append((f"SIGTERM during an outage ({kind})", "1", f"gone after {seconds:.1f} s"))
    return result


def _one_writer(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (
            f"{name}, at once",
            f"{row['rounds']} rounds",
            f"one did the work in {row['won_by_one']}; {row['faults']} ended otherwise than undisturbed",
        )
        for name, row in found.get("one_writer", {}).items()
    ]


def _many_writers(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    many = found.get("many_writers")
    if not many:
        return []
    on_server = f"{many['on_one_server']} trainings, {many['kills']} kills, {many['outages']} outages"
    return [
        ("many writers on one fresh SQLite file", f"{many['on_one_file']} trainings", _lost(many["file_faults"])),
        ("many writers on one server", on_server, _lost(many["server_faults"])),
    ]


def _lost(faults: int) -> str:
    return f"{faults} differed from the undisturbed one"


def _recording(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    row = found.get("recording")
    if not row:
        return []
    epoch, rounds = row["epoch_seconds"], row["thread_percent_of_rounds"]
    least, most = min(rounds), max(rounds)
    beside = f"{row['thread_percent']:+.1f} % ({least:+.1f} to {most:+.1f})"
    return [
        ("recording, share of an epoch", f"epochs of {epoch:.2f} s", f"{row['calls_percent']:.2f} %"),
        ("writing checkpoints", "", f"{row['checkpoints_percent']:.2f} %"),
        ("epochs with delivery against `--offline`", f"{len(rounds)} rounds", beside),
    ]


def main() -> None:
    """Put the table in its place."""
    content = json.loads(Path(sys.argv[1]).read_text())
    text = PAGE.read_text()
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n\n{figures(content)}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
