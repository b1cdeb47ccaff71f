"""Whether a candidate may take a champion's place: a pure decision."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from topotrain.errors import ConfigError
from topotrain.fields import EVAL_PREFIX, EVAL_RANKING_LOSS, EVAL_SPEARMAN, evaluation_name

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
GATE = re.compile(r"\s*(?P<metric>[^\s<>=](?:[^<>=]*[^\s<>=])?)\s*(?P<op><=|>=|==|<|>)\s*(?P<bound>[^\s<>=]+)\s*")
ABSENT = "-"

# Metrics that the default gate compares with the champion's: how a value must stand to the champion's, and in words.
COMPARED = {
    EVAL_RANKING_LOSS: ("<=", "mean ranking loss not higher than the champion's"),
    EVAL_SPEARMAN: (">=", "mean Spearman not lower than the champion's"),
}


@dataclass(frozen=True)
class Gate:
    """One condition on a candidate's metric, such as ``val_loss<0.06``."""

    metric: str
    op: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{self.bound:g}"


@dataclass(frozen=True)
class VersionMetrics:
    """What is known of one model version.

    Attributes:
        version: number, as text.
        metrics: by name.
        digest: of the data it was last evaluated on; ``None`` if it never was.
        targets: what a target and a label were then.
    """

    version: str
    metrics: Mapping[str, float]
    digest: str | None = None
    targets: str | None = None


@dataclass(frozen=True)
class Line:
    """One condition, both sides, and whether it holds."""

    condition: str
    candidate: str
    champion: str
    holds: bool


@dataclass(frozen=True)
class Decision:
    """What the gate says.

    Attributes:
        candidate: version number.
        champion: version number, or ``None`` where there is none.
        lines: one for each condition.
        numbers: of both, by metric, as far as conditions looked at them.
    """

    candidate: str
    champion: str | None
    lines: tuple[Line, ...]
    numbers: Mapping[str, Mapping[str, float | None]]

    @property
    def failing(self) -> tuple[Line, ...]:
        """Conditions that do not hold."""
        return tuple(line for line in self.lines if not line.holds)

    @property
    def holds(self) -> bool:
        """Whether every condition does."""
        return not self.failing


def parse_gate(text: str) -> Gate:
    """Read ``NAME OP NUMBER``, OP one of ``< <= > >= ==``.

    Raises:
        ConfigError: it is something else.
    """
    found = GATE.fullmatch(text)
    try:
        bound = float(found["bound"]) if found else float("nan")
    except ValueError:
        bound = float("nan")
    if not found or bound != bound:
        raise ConfigError(
            f"gate {text!r} is malformed",
            f"NAME OP NUMBER with OP one of {' '.join(OPERATORS)}",
            "e.g. 'val_loss<0.06'",
        )
    return Gate(evaluation_name(found["metric"]), found["op"], bound)


def decide(candidate: VersionMetrics, champion: VersionMetrics | None, gates: Sequence[Gate] = ()) -> Decision:
    """Decide by the default gate and by further conditions.

    The default gate: the candidate was evaluated; on the data that the champion was evaluated on, with the same
    targets; its mean ranking loss and mean Spearman are not worse, and one of them is better. Without a champion the
    first condition is all. A gate on one of these two metrics stands in its condition's place; with both replaced
    nothing is compared, and the champion's data do not matter.

    Args:
        candidate: what is known of it.
        champion: what is known of the version that has the alias now, if one has.
        gates: further conditions on the candidate.

    Raises:
        ConfigError: a gate names a metric that nothing is known of; those that are known are listed.
    """
    lines = [_evaluated(candidate, champion)]
    replaced = {gate.metric for gate in gates}
    compared = [metric for metric in COMPARED if metric not in replaced]
    looked_at = [*COMPARED, *(gate.metric for gate in gates if gate.metric not in COMPARED)]
    if champion is not None and compared:
        lines += _same_data(candidate, champion)
        lines += [_not_worse(metric, candidate, champion) for metric in compared]
        lines.append(_one_better(candidate, champion))
    lines += [_gate(gate, candidate, champion) for gate in gates]
    numbers = {
        metric: {
            "candidate": candidate.metrics.get(metric),
            "champion": champion.metrics.get(metric) if champion else None,
        }
        for metric in looked_at
    }
    return Decision(candidate.version, champion.version if champion else None, tuple(lines), numbers)


def decision_cells(decision: Decision) -> list[list[str]]:
    """The decision as a table's cells, the header first."""
    champion = f"champion {decision.champion}" if decision.champion else "no champion"
    rows = [["condition", f"candidate {decision.candidate}", champion, "result"]]
    rows += [[one.condition, one.candidate, one.champion, "holds" if one.holds else "FAILS"] for one in decision.lines]
    return rows


def _evaluated(candidate: VersionMetrics, champion: VersionMetrics | None) -> Line:
    there = ABSENT if champion is None else _yes(champion.digest)
    return Line("was evaluated", _yes(candidate.digest), there, candidate.digest is not None)


def _same_data(candidate: VersionMetrics, champion: VersionMetrics) -> list[Line]:
    sides = (
        ("evaluated on the same data (digest)", candidate.digest, champion.digest),
        ("with the same targets and labels", candidate.targets, champion.targets),
    )
    return [
        Line(words, _shown(mine), _shown(theirs), mine is not None and mine == theirs) for words, mine, theirs in sides
    ]


def _not_worse(metric: str, candidate: VersionMetrics, champion: VersionMetrics) -> Line:
    mine, theirs = candidate.metrics.get(metric), champion.metrics.get(metric)
    op, words = COMPARED[metric]
    holds = mine is not None and theirs is not None and OPERATORS[op](mine, theirs)
    return Line(words, _number(mine), _number(theirs), holds)


def _one_better(candidate: VersionMetrics, champion: VersionMetrics) -> Line:
    better = []
    for metric, (op, _) in COMPARED.items():
        mine, theirs = candidate.metrics.get(metric), champion.metrics.get(metric)
        strictly = OPERATORS[op.removesuffix("=")]
        if mine is not None and theirs is not None and strictly(mine, theirs):
            better.append(metric.removeprefix(EVAL_PREFIX))
    return Line("one of the two better", ", ".join(better) or "neither", ABSENT, bool(better))


def _gate(gate: Gate, candidate: VersionMetrics, champion: VersionMetrics | None) -> Line:
    mine = candidate.metrics.get(gate.metric)
    if mine is None and not gate.metric.startswith(EVAL_PREFIX):
        raise ConfigError(
            f"gate {str(gate)!r}: nothing is known of {gate.metric!r} for version {candidate.version}",
            f"one of: {', '.join(sorted(candidate.metrics)) or 'nothing is logged'}",
        )
    holds = mine is not None and OPERATORS[gate.op](mine, gate.bound)
    return Line(str(gate), _number(mine), _number(champion.metrics.get(gate.metric) if champion else None), holds)


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.6g}"


def _yes(value: str | None) -> str:
    return "no" if value is None else "yes"


def _shown(value: str | None) -> str:
    return "not evaluated" if value is None else value
