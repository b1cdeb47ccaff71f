"""``score --report`` and ``--annotate``: the files that they write, and the page in a browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

import topotrain
from kit.browser import chromium, find_browser, wait_for
from kit.commands import exit_status
from kit.structures import cif_text, helix, helix_pair, pdb_text
from topotrain.data.demo import write_demo_structures
from topotrain.features.structure import read_structure

PICTURE = Path("docs/images/score_report.png")
PICTURE_IN_SPACE = Path("docs/images/score_report_in_space.png")
EVIL = "<img src=x onerror=window.evil=1>;delete all"


def data_of(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


@pytest.fixture
def models(structure_model: Any, tmp_path: Path) -> Path:
    """Twelve models of one complex, one of a hostile name, one as mmCIF, and one that is broken."""
    folder = tmp_path / "models"
    folder.mkdir()
    for number in range(11):
        name = EVIL if number == 0 else f"m{number:02d}"
        (folder / f"{name}.pdb").write_text(pdb_text(helix_pair(slide=number / 3)))
    (folder / "again.cif").write_text(cif_text(helix_pair(slide=0.5)))
    (folder / "broken.pdb").write_text("ATOM broken\n")
    return folder


def test_the_page_and_the_structures_agree_with_the_table(structure_model: Any, models: Path, capsys: Any) -> None:
    out, report, annotated = models.parent / "s.csv", models.parent / "r.html", models.parent / "annotated"
    uri = structure_model.uri
    options = ["--out", out, "--report", report, "--annotate", annotated, "--tracking-uri", uri]
    assert exit_status("score", models, *options) == 0, capsys.readouterr().err
    table = [row for row in csv.DictReader(out.open()) if row["PRED_DOCKQ"]]
    data = data_of(report)
    assert [(row["model"], row["score"]) for row in data["rows"]] == [
        (row["MODEL"], float(row["PRED_DOCKQ"])) for row in table
    ]
    assert [one["model"] for one in data["views"]] == [row["MODEL"] for row in table[:10]]
    assert "broken" in report.read_text().partition('id="failed"')[2]

    source = next(models.glob(f"{table[0]['MODEL']}.*"))
    first, why = data["views"][0], topotrain.explain(source, tracking_uri=uri)
    assert first["score"] == pytest.approx(why.score)
    listed = {(chain, number, name): value for chain, number, name, value, *_ in first["residues"]}
    assert listed == {(one.chain, one.number, one.name): pytest.approx(value, abs=1e-6) for one, value in why.residues}
    sizes = [abs(value) for value in listed.values()]
    assert sizes == sorted(sizes, reverse=True)

    files = {path.name for path in annotated.iterdir()}
    assert len(files) == len(table) + 2
    assert {"view.pml", "view.cxc", "m01.pdb", "again.cif"} <= files
    assert sum(line.startswith("load ") for line in (annotated / "view.pml").read_text().splitlines()) == 10
    for name in ("m01.pdb", "again.cif"):
        assert read_structure(annotated / name).residue_ids == read_structure(models / name).residue_ids
    status = exit_status("score", models, "--annotate", report, "--tracking-uri", uri)
    assert status == 2, "a file is no folder"
    assert exit_status("score", models, "--report", annotated, "--tracking-uri", uri) == 2, "a folder is no file"


def test_an_archive_and_every_model_of_an_ensemble(structure_model: Any, tmp_path: Path) -> None:
    """Structures are read where they come from: unpacked again, and MODEL by MODEL."""
    parts = [pdb_text(helix_pair(slide=slide)).replace("END\n", "") for slide in (0.0, 2.0)]
    many = tmp_path / "many.pdb"
    many.write_text("".join(f"MODEL     {n:4d}\n{part}ENDMDL\n" for n, part in enumerate(parts, 1)) + "END\n")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(many, "many.pdb")
    report = tmp_path / "deep" / "r.html"
    done = topotrain.score(tmp_path / "a.tar.gz", models="all", report=report, tracking_uri=structure_model.uri)
    data = data_of(report)
    assert {row["model"] for row in data["rows"]} == {"many_1", "many_2"} == {row.model for row in done.rows}
    one, other = (view["chains"][1]["x"] for view in sorted(data["views"], key=lambda view: view["model"]))
    assert [round(b - a, 1) for a, b in zip(one, other, strict=True)] == [2.0] * len(one)


def test_chains_that_are_partners_count_as_one(structure_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "three.pdb"
    path.write_text(pdb_text([*helix_pair(), *helix("C", 8, (0.0, 16.0, 0.0), first=201)]))
    pages = {}
    for chains in (None, "A,B:C", "A:B"):
        page = tmp_path / "r.html"
        topotrain.score(path, chains=chains, report=page, tracking_uri=structure_model.uri)
        pages[chains] = data_of(page)
    contacts = {chains: data["rows"][0]["contacts"] for chains, data in pages.items()}
    assert contacts[None] == contacts["A,B:C"] + contacts["A:B"]
    assert [chain["name"] for chain in pages["A:B"]["views"][0]["chains"]] == ["A", "B"]


@pytest.mark.browser
def test_the_page_in_a_browser(
    structure_model: Any, models: Path, tmp_path: Path, root: Path, pytestconfig: Any
) -> None:
    """Sorted, looked through and turned, with the names of files as text, and no network."""
    report = tmp_path / "r.html"
    shutil.copytree(structure_model.structures / "T1", models.parent / "T1")
    both = [models, models.parent / "T1"]
    topotrain.score(both, report=report, tracking_uri=structure_model.uri)
    rows = data_of(report)["rows"]
    with chromium(*find_browser(), tmp_path / "profile") as window:
        window.get(report.as_uri())

        def shown() -> list[str]:
            found = window.find_elements("css selector", "#rows tr:not([hidden]) th")
            return [cell.text for cell in found]

        assert shown() == [row["model"] for row in rows]
        assert f"models/{EVIL}" in shown()
        wait_for(window, lambda page: page.find_elements("css selector", "#distribution .bars path"))
        assert len(window.find_elements("css selector", "#beside .point")) == len(rows)

        window.find_element("css selector", "button[data-key='score']").click()
        scores = {row["model"]: row["score"] for row in rows}
        assert [scores[name] for name in shown()] == sorted(scores.values())
        heading = window.find_element("css selector", "th:has(button[data-key='score'])")
        assert heading.get_attribute("aria-sort") == "ascending"
        window.find_element("id", "text").send_keys("m1")
        assert set(shown()) == {name for name in scores if "m1" in name}
        assert window.find_element("id", "count").text == f"{len(shown())} of {len(rows)} models"
        wait_for(window, lambda page: len(page.find_elements("css selector", "#beside .point")) == len(shown()))
        window.find_element("id", "text").clear()
        window.find_element("id", "text").send_keys(" ")
        choice = window.find_element("id", "target")
        choice.send_keys("T1")
        wait_for(window, lambda page: {name.split("/")[0] for name in shown()} == {"T1"})

        assert window.execute_script(COUNT) == 0, "nothing is drawn in space before it is looked at"
        choices = window.find_elements("css selector", "#choices button")
        assert len(choices) == 10
        for button in choices:
            window.execute_script("arguments[0].click()", button)
            assert button.get_attribute("aria-pressed") == "true"
            name = button.text.partition(". ")[2]
            assert window.find_element("id", "seen").text == name
        wait_for(window, lambda page: page.execute_script(COUNT) == 1)
        listed = window.find_elements("css selector", "#residues tr")
        view = data_of(report)["views"][9]
        assert len(listed) == len(view["residues"])
        chain, number, name, value, *_ = view["residues"][0]
        sign = "\u2212" if value < 0 else "+"
        assert listed[0].text.split() == [chain, number, name, f"{sign}{abs(value):.4f}"]

        assert window.execute_script("return window.evil === undefined")
        assert window.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert not [line for line in window.get_log("browser") if line["level"] == "SEVERE"]
    if pytestconfig.getoption("write_pictures"):
        take_pictures(report_of_the_demo(tmp_path), root, tmp_path / "another profile")


def report_of_the_demo(folder: Path) -> Path:
    """The page of a complex of the hold-out, scored by an ensemble that was trained with the defaults: minutes."""
    uri = f"sqlite:///{folder / 'pictures.db'}"
    runs = [topotrain.fit(overrides=[f"dataloader.seed={seed}"], tracking_uri=uri).run_id for seed in (1, 2, 3)]
    made = topotrain.ensemble(runs, tracking_uri=uri)
    write_demo_structures(folder / "complexes")
    topotrain.score(folder / "complexes/holdout/1BGS_AE", made.version, report=folder / "demo.html", tracking_uri=uri)
    return folder / "demo.html"


def take_pictures(report: Path, root: Path, profile: Path) -> None:
    """The top of the page, and one structure in space."""
    with chromium(*find_browser(), profile, (1180, 1010)) as window:
        window.get(report.as_uri())
        wait_for(window, lambda page: page.find_elements("css selector", "#distribution .bars path"))
        assert window.save_screenshot(str(root / PICTURE))
        window.execute_script("document.querySelector('#choices button').click()")
        window.execute_script("document.getElementById('views').scrollIntoView()")
        wait_for(window, lambda page: page.execute_script(COUNT) == 1)
        wait_for(window, lambda page: page.execute_script(DRAWN))
        window.set_window_size(1180, 850)
        window.execute_script("document.getElementById('views').scrollIntoView()")
        wait_for(window, lambda page: page.execute_script(DRAWN))
        assert window.save_screenshot(str(root / PICTURE_IN_SPACE))


# Scenes of plotly, each of which has a context of WebGL.
DRAWN = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
COUNT = "return document.querySelectorAll('.gl-container canvas').length"


@pytest.mark.browser
@pytest.mark.long
def test_a_thousand_models_can_be_used(tmp_path: Path) -> None:
    from time import perf_counter

    from topotrain.features.confidence import Confidence
    from topotrain.scoring.examine import Examined
    from topotrain.scoring.score_page import write_score_page
    from topotrain.scoring.score_table import Scored

    rows = [Scored(f"model_{n:04d}", "T", 1 - n / 1000, rank=n + 1) for n in range(1000)]
    path = tmp_path / "r.html"
    write_score_page(path, [Examined(row, 40, Confidence(30)) for row in rows], [], "dockq")
    with chromium(*find_browser(), tmp_path / "profile") as window:
        window.get(path.as_uri())
        wait_for(window, lambda page: page.find_elements("css selector", "#distribution .bars path"))
        begun = perf_counter()
        window.find_element("id", "text").send_keys("_09")
        wait_for(window, lambda page: page.find_element("id", "count").text == "100 of 1000 models")
        window.find_element("css selector", "button[data-key='model']").click()
        assert perf_counter() - begun < 10


def test_the_pictures_are_kept_and_shown(root: Path) -> None:
    page = (root / "docs" / "explain.md").read_text()
    for path in (PICTURE, PICTURE_IN_SPACE):
        picture = (root / path).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert 20_000 < len(picture) < 300_000
        assert f"]({path.relative_to('docs').as_posix()})" in page
