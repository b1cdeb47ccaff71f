"""A model version in one line: which it is, what it learned from, how it was judged."""

from __future__ import annotations

from pathlib import PurePath

from topotrain.fields import (
    DEMO,
    EVAL_RANKING_LOSS,
    EVAL_SPEARMAN,
    MEMBERS_GRAPHS,
    TAG_EVAL_DIGEST,
    TAG_NUM_MEMBERS,
    VAL_LOSS,
)
from topotrain.reading.numbers import number
from topotrain.tracking.records import VersionRecord
from topotrain.tracking.store import Store


def version_in_words(version: VersionRecord, store: Store) -> str:
    """``topoqa version 3 (champion): trained on 160 demo graphs, val_loss 0.0413; judged on ...``.

    Raises:
        TrackingError: the store can't be asked.
    """
    members = version.tags.get(TAG_NUM_MEMBERS)
    ensemble = f"ensemble of {members}, " if members else ""
    parts = "; ".join(filter(None, [_trained(version, store), _judged(version, store)]))
    return f"{version_name(version)}: {ensemble}{parts}"


def version_name(version: VersionRecord) -> str:
    """``topoqa version 3 (champion)``."""
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    return f"{version.name} version {version.number}{aliases}"


def _trained(version: VersionRecord, store: Store) -> str:
    run = store.runs.known(version.run_id)
    params = run.params if run else {}
    if MEMBERS_GRAPHS in params:
        return f"each trained on {params[MEMBERS_GRAPHS]} graphs, not all the same"
    if "data.num_train" not in params:
        return "what it was trained on is not known"
    graphs = params.get("paths.graph", DEMO)
    name = graphs if graphs == DEMO else PurePath(graphs).name
    loss = number(version.tags.get(VAL_LOSS, ""))
    reached = f", val_loss {loss:.4f}" if loss == loss else ""
    return f"trained on {params['data.num_train']} graphs of {name}{reached} on {params.get('data.num_val')} others"


def _judged(version: VersionRecord, store: Store) -> str:
    digest = version.tags.get(TAG_EVAL_DIGEST)
    found = {one.name: one for one in store.versions.logged_metrics(version) if one.dataset_digest == digest}
    told = [
        f"{title} {found[name].value:.3f}"
        for name, title in ((EVAL_SPEARMAN, "Spearman"), (EVAL_RANKING_LOSS, "ranking loss"))
        if name in found
    ]
    if digest is None or not told:
        return "never judged on other complexes: topotrain evaluate does"
    return f"judged on {next(iter(found.values())).dataset}: {', '.join(told)}"
