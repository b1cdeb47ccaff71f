"""How the benchmarks measure: memory of a process, ratios with their spread, tables."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MEGA = 1e6


@dataclass(frozen=True)
class Spread:
    """Median and extremes of repeated measurements."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """At least one value."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        if self.rounds == 1:
            return figure(self.median)
        return f"{figure(self.median)} ({figure(self.least)} to {figure(self.most)})"

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def figure(value: float) -> str:
    """Three figures, without an exponent."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def ratios(slower: Sequence[float], faster: Sequence[float]) -> Spread:
    """How many times as fast, round by round: what was measured side by side is divided, never two medians."""
    return Spread.of([one / other for one, other in zip(slower, faster, strict=True)])


def seconds(action: Callable[[], Any]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def memory(pid: int | None = None) -> dict[str, float]:
    """Resident megabytes of a process: now (anonymous and of files), and at most so far.

    Pages of mapped files count in ``file``: the kernel takes them back when memory is short, so they are no burden,
    but they are shown by ``top`` all the same.
    """
    wanted = {"RssAnon": "anon", "RssFile": "file", "VmHWM": "peak"}
    found: dict[str, float] = {}
    for line in Path(f"/proc/{pid or 'self'}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in wanted:
            found[wanted[name]] = int(value.split()[0]) * 1024 / MEGA
    found["resident"] = found["anon"] + found["file"]
    return found


def settle(folder: Path) -> None:
    """Wait until a folder's files are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def forget_pages(folder: Path) -> None:
    """Drop a folder's files from the page cache, so that the next read is from the disk."""
    settle(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of like keys as Markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        lines.append("| " + " | ".join(figure(c) if isinstance(c, float) else str(c) for c in cells) + " |")
    return "\n".join(lines)


def write_json(path: Path | None, content: Any) -> None:
    """The numbers, where a file was asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return value.to_dict()
    return str(value)
