"""What a figure shows, in plain values; ``png`` and ``page`` draw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Marker = Literal["circle", "diamond", "square"]

PALETTE = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999", "#ee7733", "#332288", "#44aa99",
    "#882255", "#8c564b", "#88dd55", "#cc99ff", "#000000", "#ff3399", "#0000cc", "#886600", "#ffaaaa", "#005544",
)  # fmt: skip
GUIDE_COLOUR = "#999999"  # of lines that are no data


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: what it shows, with the unit if there is one.
        limits: where it begins and ends; by default as the data need.
        whole: whether its values are whole numbers.
    """

    label: str
    limits: tuple[float, float] | None = None
    whole: bool = False


@dataclass(frozen=True)
class Series:
    """Values that are drawn in one manner.

    Attributes:
        kind: how; the values of ``lying bars`` are ``x``, and ``y`` names them.
        x: of each value.
        y: of each value; names make an axis of names.
        colour: of all of them.
        label: in the legend; an empty one is left out.
        texts: of each value: shown over a bar, and where a point is pointed at.
        errors: half the length of each value's error bar along ``y``; empty for none.
        marker: of points.
        width: of bars, in units of ``x``.
    """

    kind: Literal["points", "line", "bars", "lying bars"]
    x: Sequence[float]
    y: Sequence[float] | Sequence[str]
    colour: str
    label: str = ""
    texts: Sequence[str] = ()
    errors: Sequence[float] = ()
    marker: Marker = "circle"
    width: float = 1.0

    @property
    def marked(self) -> bool:
        """Whether a line has points: for its error bars, or because one value alone makes no line."""
        return bool(self.errors) or len(self.x) == 1


@dataclass(frozen=True)
class Panel:
    """A pair of axes and what is drawn on them.

    Attributes:
        x: horizontal axis.
        y: vertical axis.
        series: in the order of drawing and of the legend.
        diagonal: whether a dotted line shows where both are equal, from 0 to 1.
        square: whether both axes have the same scale.
        mark: where a dotted vertical line is, and its label.
    """

    x: Axis
    y: Axis
    series: Sequence[Series]
    diagonal: bool = False
    square: bool = False
    mark: tuple[float, str] | None = None


@dataclass(frozen=True)
class Chart:
    """One figure.

    Attributes:
        name: of its file, without a suffix.
        heading: for people, short.
        caption: what it shows, with units.
        panels: side by side, or below each other on one horizontal axis.
        inches: width and height.
        heights: of panels below each other, relative; empty where they are side by side.
        legend: heading of the legend.
    """

    name: str
    heading: str
    caption: str
    panels: Sequence[Panel]
    inches: tuple[float, float]
    heights: Sequence[float] = ()
    legend: str = ""
