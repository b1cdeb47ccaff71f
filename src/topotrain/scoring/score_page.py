"""Scores as one page that opens without a network: ranked table, distribution, and the best in space."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from topotrain.disk import EXPECTED
from topotrain.errors import DataError
from topotrain.features.dockq import CAPRI_THRESHOLDS
from topotrain.fields import DOCKQ_COLUMN, quality_name
from topotrain.figures.page import page
from topotrain.files import write_whole
from topotrain.scoring.examine import Examined, Trace, View
from topotrain.scoring.score_table import Scored

# The page asks nothing of any network, whatever the names of files try; plotly compiles what draws in space.
POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:\">"
)
CAPRI_NAMES = ("acceptable", "medium", "high")
SINGLE = "A single network gives no interval; an ensemble does (topotrain ensemble)."
SPREAD = "The interval is the spread of the ensemble's members (one standard deviation)."
CONTACTS = "Contacts are pairs of residues of different partners with C-betas within 8 Angstrom."
PDOCKQ = (
    "B-factors are read as pLDDT: the mean over residues in contact, and the pDockQ that follows from it and the "
    "number of contacts (Bryant et al., Nature Communications 13, 1265, 2022)."
)


def write_score_page(
    path: Path, examined: Sequence[Examined], failed: Sequence[Scored], quality: str, sentences: Sequence[str] = ()
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        examined: scored structures, in the order of the table.
        failed: rows without a score.
        quality: the column of what was predicted.
        sentences: what is to be known of the scores; above the table.

    Raises:
        DataError: it can't be written.
    """
    try:
        write_whole(path, score_page(examined, failed, quality, sentences).encode())
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror or error})", EXPECTED, "choose another") from None


def score_page(
    examined: Sequence[Examined], failed: Sequence[Scored], quality: str, sentences: Sequence[str] = ()
) -> str:
    """The page as text; see ``write_score_page``."""
    from plotly.offline import get_plotlyjs

    targets = list(dict.fromkeys(one.row.target for one in examined))
    spread = any(one.row.spread is not None for one in examined)
    confident = any(one.confidence.pdockq is not None for one in examined)
    predicted = f"predicted {quality_name(quality)}"
    said = [*sentences, SPREAD if spread else SINGLE, CONTACTS, *([PDOCKQ] if confident else [])]
    data = {
        "predicted": predicted,
        "spread": spread,
        "targets": targets,
        "thresholds": list(zip(CAPRI_THRESHOLDS, CAPRI_NAMES, strict=True)) if quality == DOCKQ_COLUMN else [],
        "rows": [_row(one) for one in examined],
        "views": [_view(one, one.view) for one in examined if one.view],
    }
    parts = [
        "<main>",
        *(f'<p class="said">{escape(sentence)}</p>' for sentence in said),
        _table(examined, targets, predicted, spread=spread, confident=confident),
        _charts(predicted, "pDockQ" if confident else "contacts"),
        _space([one for one in examined if one.view]),
        _failed(failed),
        "</main>",
        f'<script type="application/json" id="data">{_as_json(data)}</script>',
        f"<script>{get_plotlyjs()}</script>",
        f"<script>{_file('score_page.js')}</script>",
    ]
    of = f"{len(examined)} models" + (f" of {len(targets)} complexes" if len(targets) > 1 else f" of {targets[0]}")
    return page(f"{of}, ranked by {predicted}", "\n".join(parts), f"{POLICY}<style>{_file('score_page.css')}</style>")


def _file(name: str) -> str:
    return resources.files("topotrain.scoring").joinpath(name).read_text(encoding="utf-8")


def _as_json(data: Any) -> str:
    """Within a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _row(one: Examined) -> dict[str, Any]:
    row, beside = one.row, one.confidence
    return {
        "rank": row.rank,
        "model": row.model,
        "target": row.target,
        "score": row.pred_dockq,
        "spread": row.spread,
        "residues": one.residues,
        "contacts": beside.contacts,
        "plddt": _rounded(beside.plddt, 1),
        "pdockq": _rounded(beside.pdockq, 3),
    }


def _rounded(value: float | None, decimals: int) -> float | None:
    return None if value is None else round(value, decimals)


def _view(one: Examined, view: View) -> dict[str, Any]:
    return {
        "model": one.row.model,
        "score": view.score,
        "reference": view.reference,
        "chains": [{"name": trace.chain, **_points(trace)} for trace in view.traces],
        "residues": [
            [residue.chain, residue.number, residue.name, round(value, 6), *(round(part, 1) for part in place)]
            for residue, value, place in view.residues
        ],
    }


def _points(trace: Trace) -> dict[str, list[float | None]]:
    columns = trace.points.T.round(1).tolist()
    return {
        axis: [None if math.isnan(value) else value for value in column]
        for axis, column in zip("xyz", columns, strict=True)
    }


def _table(
    examined: Sequence[Examined], targets: Sequence[str], predicted: str, *, spread: bool, confident: bool
) -> str:
    several = len(targets) > 1
    columns = [("rank", "rank", True), ("model", "model", False)]
    columns += [("target", "complex", False)] if several else []
    columns += [("score", predicted + (" ± spread" if spread else ""), False), ("residues", "residues", True)]
    columns += [("contacts", "contacts", True)]
    columns += [("plddt", "interface pLDDT", True), ("pdockq", "pDockQ", True)] if confident else []
    heads = "".join(
        f'<th scope="col"{" class=number" if number else ""}>'
        f'<button type="button" data-key="{key}">{escape(name)}</button></th>'
        for key, name, number in columns
    )
    views = iter(range(len(examined)))
    rows = "\n".join(
        _table_row(one, next(views) if one.view else None, several=several, confident=confident) for one in examined
    )
    options = "".join(f'<option value="{place}">{escape(name)}</option>' for place, name in enumerate(targets))
    chosen = (
        f'<label for="target">complex<select id="target"><option value="">all</option>{options}</select></label>'
        if several
        else ""
    )
    return f"""<section aria-labelledby="ranking"><h2 id="ranking">Ranking</h2>
<div class="controls">{chosen}<label for="text">name contains<input id="text" type="search" autocomplete="off"></label>
<span id="count" role="status"></span></div>
<div class="scroll" tabindex="0" role="region" aria-labelledby="ranking"><table>
<caption>A column's heading sorts by it; <em>show</em> puts one of the best in space, below.</caption>
<thead><tr>{heads}<th scope="col">in space</th></tr></thead>
<tbody id="rows">
{rows}
</tbody></table></div></section>"""


def _table_row(one: Examined, view: int | None, *, several: bool, confident: bool) -> str:
    row, beside = one.row, one.confidence
    cells = [f'<td class="number">{row.rank}</td>', f'<th scope="row" class="name">{escape(row.model)}</th>']
    cells += [f'<td class="name">{escape(row.target)}</td>'] if several else []
    interval = "" if row.spread is None else f" ± {row.spread:.3f}"
    cells.append(f"<td>{row.pred_dockq:.3f}{interval}{_scale(row.pred_dockq, row.spread)}</td>")
    numbers = [str(one.residues), str(beside.contacts)]
    numbers += [_shown(beside.plddt, 1), _shown(beside.pdockq, 3)] if confident else []
    cells += [f'<td class="number">{number}</td>' for number in numbers]
    shown = f'<button type="button" data-view="{view}">show</button>' if view is not None else ""
    return f"<tr>{''.join(cells)}<td>{shown}</td></tr>"


def _shown(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _scale(score: float, spread: float | None) -> str:
    """A bar from 0 to 1 with the interval; the number beside it says the same."""
    low, high = (min(max(score + sign * (spread or 0.0), 0.0), 1.0) for sign in (-1, 1))
    mark = "" if spread is None else f'<b style="left:{low:.1%};width:{high - low:.1%}"></b>'
    return f'<span class="scale" aria-hidden="true"><i style="width:{min(max(score, 0.0), 1.0):.1%}"></i>{mark}</span>'


def _charts(predicted: str, beside: str) -> str:
    return f"""<section class="side">
<div><h2>Distribution</h2>
<div id="distribution" class="chart" role="img" aria-label="Histogram of {escape(predicted)}"></div></div>
<div><h2>Beside {beside}</h2>
<div id="beside" class="chart" role="img" aria-label="{escape(predicted)} beside {beside}"></div></div>
</section>"""


def _space(best: Sequence[Examined]) -> str:
    choices = "".join(
        f'<button type="button" data-view="{place}" aria-pressed="false">{one.row.rank}. '
        f"{escape(one.row.model)}</button>"
        for place, one in enumerate(best)
    )
    return f"""<section id="views" aria-labelledby="best"><h2 id="best">The best {len(best)} in space</h2>
<div id="choices" class="choices" role="group" aria-labelledby="best">{choices}</div>
<div class="look"><div id="space" role="img" aria-label="Chains as lines"></div>
<div><h3 id="seen" class="name"></h3><p id="sum" class="said"></p>
<div class="key" aria-hidden="true"></div>
<div class="ends"><span id="low"></span><span>lowers &#183; importance &#183; raises</span><span id="high"></span></div>
<div class="scroll" tabindex="0" role="region" aria-labelledby="seen"><table class="plain">
<thead><tr><th scope="col">chain</th><th scope="col">number</th><th scope="col">residue</th>
<th scope="col" class="number">importance</th></tr></thead><tbody id="residues"></tbody></table></div></div></div>
</section>"""


def _failed(failed: Sequence[Scored]) -> str:
    if not failed:
        return ""
    rows = "".join(
        f'<tr><th scope="row" class="name">{escape(row.model)}</th><td class="name">{escape(row.error)}</td></tr>'
        for row in failed
    )
    return f"""<section aria-labelledby="failed"><h2 id="failed">Without a score</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="failed"><table class="plain">
<thead><tr><th scope="col">model</th><th scope="col">why</th></tr></thead><tbody>{rows}</tbody></table></div>
</section>"""
