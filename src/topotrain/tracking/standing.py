"""Whether a new version takes the alias of another: only where it is better, on a scale that both are on."""

from __future__ import annotations

import re

from topotrain.fields import SELECTION_METRIC, TAG_RANKED_BY, TAG_VALIDATION_DIGEST, VAL_LOSS
from topotrain.reading.numbers import number
from topotrain.tracking.records import VersionRecord

DIGEST = re.compile(r"[0-9a-f]{64}")
SHOWN_DIGEST = 8
TAKE = "--take-candidate takes it all the same"


def why_it_stays(alias: str, holder: VersionRecord, other: VersionRecord) -> str | None:
    """Why an alias stays where it is, in one line; ``None`` where the other version is to have it.

    Losses are comparable where they are of the same decoys with the same labels, and selection metrics where they are
    made of the same parts, too.

    Args:
        alias: which.
        holder: has it.
        other: might take it.
    """
    stays = f"{alias} of {holder.name} stays version {holder.number}"
    for tag, what in ((TAG_RANKED_BY, "ranked by"), (TAG_VALIDATION_DIGEST, "validated on")):
        own, held = (_shown(one.tags.get(tag, "what it does not say")) for one in (other, holder))
        if own != held or tag not in other.tags:
            return f"{stays}: it was {what} {held}, and {other.number} {what} {own}; {TAKE}"
    metric = SELECTION_METRIC if other.tags[TAG_RANKED_BY].startswith(SELECTION_METRIC) else VAL_LOSS
    mine, theirs = (number(one.tags.get(metric, "")) for one in (other, holder))  # lower is better
    if not mine < theirs:
        return f"{stays}: its {metric} is {theirs:.4f}, that of {other.number} {mine:.4f}"
    return None


def _shown(text: str) -> str:
    """A digest cut short, and other texts as they are."""
    return text[:SHOWN_DIGEST] if DIGEST.fullmatch(text) else text
