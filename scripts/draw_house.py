#!/usr/bin/env python
"""Draw the rooms of the package and the way of the data: ``docs/images/house.svg``.

Rooms and imports are read from the code; a test holds the picture against them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from kit.house import FILES, FLOORS, room_of, rooms_imported  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "house.svg"
# What each room does to what it is given, in the order in which a training run meets them.
WAY = (
    ("features", "structures to graphs"),
    ("data", "graphs, joined with labels"),
    ("schema", "one schema from all graphs"),
    ("model", "batches to scores and a loss"),
    ("metrics", "scores to metrics"),
    ("training", "an epoch is selected, kept, recorded"),
    ("tracking", "the server keeps it"),
    ("scoring", "a kept version scores other graphs"),
)
WIDTH, LEFT, MARGIN = 1000, 250, 14
FLOOR_HEIGHT, BOX_HEIGHT = 64, 36
BLUE, GREY, LINE = "#4477aa", "#555555", "#c8ccd2"
FONT = 'font-family="system-ui, sans-serif"'


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")


def picture() -> str:
    """The picture as SVG."""
    floors = [(words, rooms) for words, rooms in FLOORS.items() if rooms != ("__main__",)]
    places = dict(_places(floors))
    height = FLOOR_HEIGHT * len(floors) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT} font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        *_bands(floors),
        *_arrows(places),
        *_boxes(places),
        f'<text x="{MARGIN}" y="{height - 14}" fill="{GREY}" font-size="12">Grey: imports, all of them downwards. '
        "Numbers: the way of the data in a training run, and of what it leaves.</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _places(floors: list[tuple[str, tuple[str, ...]]]) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Left edge, top and width of each room."""
    for level, (_, rooms) in enumerate(floors):
        width = (WIDTH - LEFT - MARGIN * (len(rooms) + 1)) / len(rooms)
        narrow = min(width, 236.0)
        used = len(rooms) * narrow + (len(rooms) - 1) * MARGIN
        start = LEFT + (WIDTH - LEFT - used) / 2
        for number, room in enumerate(rooms):
            top = level * FLOOR_HEIGHT + (FLOOR_HEIGHT - BOX_HEIGHT) / 2
            yield room, (start + number * (narrow + MARGIN), top, narrow)


def _bands(floors: list[tuple[str, tuple[str, ...]]]) -> Iterator[str]:
    for level, (words, _) in enumerate(floors):
        top = level * FLOOR_HEIGHT
        if level % 2 == 0:
            yield f'<rect y="{top}" width="{WIDTH}" height="{FLOOR_HEIGHT}" fill="#f5f6f8"/>'
        yield f'<text x="{MARGIN}" y="{top + FLOOR_HEIGHT / 2 + 5:g}" fill="{GREY}">{escape(words)}</text>'


def _arrows(places: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    imported: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        imported[room_of(path)] |= rooms_imported(path)
    for room in sorted(imported):
        for other in sorted(imported[room] - {room}):
            # What everything imports (the small things) would hide the rest.
            if room in places and other in places and places[other][1] < places["figures"][1]:
                (x1, y1, w1), (x2, y2, w2) = places[room], places[other]
                yield (
                    f'<line x1="{x1 + w1 / 2:g}" y1="{y1 + BOX_HEIGHT:g}" x2="{x2 + w2 / 2:g}" y2="{y2:g}" '
                    f'stroke="{LINE}" stroke-width="1.2"/>'
                )


def _boxes(places: dict[str, tuple[float, float, float]]) -> Iterator[str]:
    way = {room: (number, words) for number, (room, words) in enumerate(WAY, start=1)}
    for room, (left, top, width) in places.items():
        stroke = BLUE if room in way else GREY
        yield (
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{BOX_HEIGHT}" rx="6" fill="white" '
            f'stroke="{stroke}" stroke-width="{1.8 if room in way else 1}"/>'
        )
        middle = left + width / 2
        if room not in way:
            yield f'<text x="{middle:g}" y="{top + 23:g}" text-anchor="middle" font-weight="600">{room}</text>'
            continue
        number, words = way[room]
        yield f'<text x="{middle:g}" y="{top + 15:g}" text-anchor="middle" font-weight="600">{room}</text>'
        yield (
            f'<text x="{middle:g}" y="{top + 30:g}" text-anchor="middle" font-size="11" fill="{BLUE}">'
            f"{number}. {escape(words)}</text>"
        )


if __name__ == "__main__":
    main()
