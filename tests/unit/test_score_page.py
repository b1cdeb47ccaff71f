"""The page of scores as text: what is in it, that names stay names, and its size at a thousand models."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from topotrain.features.confidence import Confidence
from topotrain.scoring.examine import BEST, Examined, Trace, View, best_first
from topotrain.scoring.explain import Residue
from topotrain.scoring.score_page import SINGLE, SPREAD, score_page
from topotrain.scoring.score_table import Scored, rank_by_target

EVIL = "</script><script>window.evil=1</script><img src=x onerror=window.evil=1>'\"&<!--\u2028"


class Page(HTMLParser):
    """Elements, their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.scripts += [""] if tag == "script" else []

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def view(residues: int = 3, points: int = 5) -> View:
    rng = np.random.default_rng(0)
    trace = np.insert(rng.normal(size=(points, 3)) * 10, 2, np.nan, axis=0)
    found = tuple((Residue("A", str(n), "ALA"), 0.1 - 0.05 * n, (1.0, 2.0, 3.0)) for n in range(residues))
    return View((Trace("A", trace), Trace(EVIL, trace)), found, 0.5, 0.3)


def examined(
    names: list[str], targets: int = 1, *, spread: float | None = None, pdockq: bool = False
) -> list[Examined]:
    rows = rank_by_target(
        Scored(name, f"T{place % targets}", 0.9 * (place + 1) / len(names), spread=spread)
        for place, name in enumerate(names)
    )
    beside = Confidence(40, 81.2, 0.41) if pdockq else Confidence(40)
    ordered = best_first(rows)
    return [Examined(row, 30, beside, view() if place < BEST else None) for place, row in enumerate(ordered)]


def test_names_from_files_never_become_elements_or_scripts() -> None:
    plain = Page(score_page(examined(["a", "b"]), [Scored.failed("c", "T0", "why")], "dockq"))
    one = examined([EVIL, "b"])
    failed = [Scored.failed(EVIL, EVIL, EVIL)]
    text = score_page(one, failed, "dockq", [EVIL])
    page = Page(text)
    tags, expected = (Counter(tag for tag, _ in one.elements) for one in (page, plain))
    assert tags == expected + Counter(["p"])  # of the sentence
    assert {name for _, attributes in page.elements for name in attributes if name.startswith("on")} == set()
    assert len(page.scripts) == len(plain.scripts)
    assert page.data["rows"][0]["model"] == "b"
    assert page.data["rows"][1]["model"] == EVIL
    assert page.data["views"][0]["chains"][1]["name"] == EVIL
    assert "window.evil" not in page.scripts[1] + page.scripts[2]


def test_what_the_page_holds() -> None:
    page = Page(score_page(examined([f"m{n}" for n in range(25)], 2, spread=0.04, pdockq=True), [], "dockq"))
    data = page.data
    assert [row["rank"] for row in data["rows"]][:4] == [1, 1, 2, 2]
    assert data["rows"][0] == {
        **{"rank": 1, "model": "m24", "target": "T0", "score": 0.9, "spread": 0.04, "residues": 30, "contacts": 40},
        **{"plddt": 81.2, "pdockq": 0.41},
    }
    assert len(data["views"]) == BEST
    assert data["views"][0]["chains"][0]["x"][2] is None
    assert data["views"][0]["residues"][0] == ["A", "0", "ALA", 0.1, 1.0, 2.0, 3.0]
    assert data["thresholds"] == [[0.23, "acceptable"], [0.49, "medium"], [0.8, "high"]]
    keys = [attributes["data-key"] for _, attributes in page.elements if "data-key" in attributes]
    assert keys == ["rank", "model", "target", "score", "residues", "contacts", "plddt", "pdockq"]
    assert {"lang": "en"} in [attributes for tag, attributes in page.elements if tag == "html"]
    labelled = {attributes["for"] for tag, attributes in page.elements if tag == "label"}
    assert labelled == {"target", "text"}


def test_what_is_not_there_has_no_column_and_is_said() -> None:
    text = score_page(examined(["a", "b"]), [], "lddt")
    page = Page(text)
    keys = [attributes["data-key"] for _, attributes in page.elements if "data-key" in attributes]
    assert keys == ["rank", "model", "score", "residues", "contacts"]
    assert page.data["thresholds"] == []
    assert SINGLE in text
    assert SPREAD not in text
    assert "pLDDT" not in text.partition("<script")[0]
    assert "predicted lddt" in text
    assert 'id="target"' not in text.partition("<script")[0]


def test_nothing_is_asked_of_a_network() -> None:
    text = score_page(examined(["a"]), [], "dockq")
    page = Page(text)
    assert not [attributes for _, attributes in page.elements if {"src", "href"} & set(attributes)]
    policy = next(
        attributes["content"] for tag, attributes in page.elements if tag == "meta" and "content" in attributes
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert text.index("Content-Security-Policy") < text.index("</head>")
    assert re.search(r"plotly\.js v\d", text)


def test_a_thousand_models_stay_small() -> None:
    text = score_page(examined([f"folder/model_{n:04d}_of_a_long_name" for n in range(1000)], 4), [], "dockq")
    without = score_page(examined(["m"]), [], "dockq")
    assert len(text) - len(without) < 800_000
    assert len(without) < 5_500_000


def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Any) -> None:
    from topotrain.errors import DataError
    from topotrain.scoring.score_page import write_score_page

    (tmp_path / "file").write_text("of mine")
    with pytest.raises(DataError, match="can't be written"):
        write_score_page(tmp_path / "file" / "r.html", examined(["a"]), [], "dockq")
