"""Move an alias to a candidate if the gate holds, or back."""

from __future__ import annotations

import getpass
import json
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from topotrain.errors import ConfigError, GateRefusedError, TrackingError
from topotrain.evaluation.gate import Decision, VersionMetrics, decide, decision_cells, parse_gate
from topotrain.fields import (
    TAG_EVAL_DIGEST,
    TAG_EVAL_TARGETS,
    TAG_PROMOTED_ALIAS,
    TAG_PROMOTED_AT,
    TAG_PROMOTED_BY,
    TAG_PROMOTED_NUMBERS,
    TAG_PROMOTED_REASON,
    TAG_PROMOTED_REPLACED,
    TAG_ROLLED_BACK,
)
from topotrain.text import aligned
from topotrain.tracking.records import VersionRecord
from topotrain.tracking.store import Store, find_store
from topotrain.tracking.versions import CANDIDATE

log = logging.getLogger("topotrain")

NONE = "none"


@dataclass(frozen=True)
class Promotion:
    """What was decided, and what was done.

    Attributes:
        decision: of the gate; ``None`` for a way back.
        outcome: one line.
        refused: why the alias stayed, for the error; empty where it was not refused.
    """

    decision: Decision | None
    outcome: str
    refused: str = ""

    @property
    def text(self) -> str:
        """What is printed."""
        table = [] if self.decision is None else [*aligned(decision_cells(self.decision), left=4), ""]
        return "\n".join([*table, self.outcome]) + "\n"

    def check(self) -> None:
        """Raise if the gate refused.

        Raises:
            GateRefusedError: it did.
        """
        if self.refused:
            raise GateRefusedError(self.refused)


def promote(
    model_name: str,
    *,
    version: str | None = None,
    run: str | None = None,
    alias: str = "champion",
    gates: Sequence[str] = (),
    dry_run: bool = False,
    force: bool = False,
    reason: str = "",
    experiment: str | None = None,
    tracking_uri: str | None = None,
) -> Promotion:
    """Promote a version if the gate holds; ``Promotion.check`` raises if it did not.

    Args:
        model_name: of the registered model.
        version: to promote; by default the one with the alias ``candidate``.
        run: instead of a version: a run, whose best version is meant.
        alias: to move.
        gates: further conditions, ``NAME OP NUMBER``.
        dry_run: decide, and change nothing.
        force: move the alias though the gate refuses; needs a reason.
        reason: kept with the version.
        experiment: look for the run in this experiment only.
        tracking_uri: of the store.

    Raises:
        ConfigError: a malformed gate, one on an unknown metric, or options that contradict each other.
        TrackingError: no such model, version or run; or the alias was moved meanwhile.
    """
    if force and not reason.strip():
        raise ConfigError("--force is given without a reason", "--reason TEXT, which is kept with the version")
    if version and run:
        raise ConfigError(f"version {version} and run {run!r} are both given", "one of them")
    conditions = [parse_gate(gate) for gate in gates]
    store = find_store(tracking_uri)
    candidate = _candidate(store, model_name, version, run, experiment)
    champion = store.versions.with_alias(model_name, alias)
    if champion is not None and champion.number == candidate.number:
        return Promotion(None, f"{alias} of {model_name} is version {candidate.number} already; nothing was changed")
    replaced = None if champion is None else _version_metrics(store, champion)
    decision = decide(_version_metrics(store, candidate), replaced, conditions)
    move = f"{alias} of {model_name}: version {decision.champion or NONE} -> {decision.candidate}"
    if not decision.holds and not force:
        return Promotion(decision, f"refused; {alias} stays", _refusal(decision, candidate, champion, alias))
    if dry_run:
        return Promotion(decision, f"would move {move} (dry run: nothing was changed)")
    tags = {
        **_signature(alias),
        TAG_PROMOTED_REASON: reason.strip() or f"the gate held: {'; '.join(one.condition for one in decision.lines)}",
        TAG_PROMOTED_NUMBERS: json.dumps(decision.numbers),
        TAG_PROMOTED_REPLACED: decision.champion or NONE,
    }
    store.versions.move_alias(model_name, alias, decision.candidate, expected=decision.champion, tags=tags)
    first_one = "" if decision.champion else " (there was none before; nothing was compared)"
    return Promotion(decision, f"moved {move}{first_one}" + ("" if decision.holds else f" BY FORCE: {reason.strip()}"))


def rollback(
    model_name: str,
    *,
    alias: str = "champion",
    dry_run: bool = False,
    reason: str = "",
    tracking_uri: str | None = None,
) -> Promotion:
    """Put back the version that the present one replaced.

    Args:
        model_name: of the registered model.
        alias: to move back.
        dry_run: say what would be done, and change nothing.
        reason: kept with the version that is left.
        tracking_uri: of the store.

    Raises:
        TrackingError: nothing has the alias, nothing is recorded of what it replaced, or that version is gone.
    """
    versions = find_store(tracking_uri).versions
    present = versions.with_alias(model_name, alias)
    if present is None:
        raise TrackingError(f"no version of {model_name} has the alias {alias}", "a version that was promoted")
    replaced = present.tags.get(TAG_PROMOTED_REPLACED)
    if replaced is None or present.tags.get(TAG_PROMOTED_ALIAS) != alias:
        raise TrackingError(
            f"nothing is recorded of what version {present.number} of {model_name} replaced as {alias}",
            "a version that topotrain promote gave this alias",
            "give the version: topotrain promote --version N --force --reason ...",
        )
    if replaced == NONE:
        raise TrackingError(f"version {present.number} of {model_name} was the first {alias}", "a version before it")
    versions.get(model_name, replaced)
    move = f"{alias} of {model_name}: version {present.number} -> {replaced}, back"
    if dry_run:
        return Promotion(None, f"would move {move} (dry run: nothing was changed)")
    signature = _signature(alias)
    note = f"{signature[TAG_PROMOTED_AT]} by {signature[TAG_PROMOTED_BY]} to version {replaced}"
    tags = {TAG_ROLLED_BACK: f"{note}: {reason.strip()}" if reason.strip() else note}
    versions.move_alias(model_name, alias, replaced, expected=present.number, tags=tags, tagged=present.number)
    return Promotion(None, f"moved {move}")


def _candidate(
    store: Store, model_name: str, version: str | None, run: str | None, experiment: str | None
) -> VersionRecord:
    if version:
        return store.versions.get(model_name, version)
    if run:
        found = store.runs.find(run, experiment)
        best = store.versions.best_of_run(found.run_id, model_name)
        if best is None:
            raise TrackingError(
                f"run {found.run_id} registered no version of {model_name}",
                "a run that registered one",
                "give --version N",
            )
        return best
    candidate = store.versions.with_alias(model_name, CANDIDATE)
    if candidate is None:
        raise TrackingError(
            f"no version of {model_name} has the alias {CANDIDATE}", "a version that has it", "give --version N"
        )
    return candidate


def _version_metrics(store: Store, version: VersionRecord) -> VersionMetrics:
    return VersionMetrics(
        version.number,
        store.versions.known_metrics(version),
        version.tags.get(TAG_EVAL_DIGEST),
        version.tags.get(TAG_EVAL_TARGETS),
    )


def _refusal(decision: Decision, candidate: VersionRecord, champion: VersionRecord | None, alias: str) -> str:
    """The failing line, and what to do where an evaluation is missing or is of other data."""
    first = decision.failing[0]
    line = f"promotion refused: {first.condition}: candidate {first.candidate}, {alias} {first.champion}"
    digests = [one.tags.get(TAG_EVAL_DIGEST) for one in (candidate, champion) if one is not None]
    command = "topotrain evaluate --model models:"
    if digests[0] is None:
        return f"{line}; evaluate it: {command}/{candidate.name}/{candidate.number}"
    if champion is not None and len(set(digests)) > 1:
        return f"{line}; evaluate both on the same data: {command}/{champion.name}/{champion.number} --graphs --labels"
    return line


def _signature(alias: str) -> dict[str, str]:
    """Who, when, and what for."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no entry for this user id, as in containers
        user = "unknown"
    return {
        TAG_PROMOTED_ALIAS: alias,
        TAG_PROMOTED_BY: f"{user}@{socket.gethostname()}",
        TAG_PROMOTED_AT: datetime.now(UTC).isoformat(timespec="seconds"),
    }
