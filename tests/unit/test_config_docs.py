"""docs/configuration.md and the shipped recipes say what the program does: keys, defaults, ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from topotrain.config import TrainConfig, known_dotted_keys, legacy, load_config
from topotrain.errors import ConfigError
from topotrain.limits import NUMBER

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "configuration.md").read_text()
DEMO_KEYS = ("paths.graph", "paths.train_labels", "paths.val_labels")  # together or not at all
FAR, STEP = NUMBER.default - 1, {"integer": 1, "number": 1e-6}  # an odd number
FILES = ("paths.", "mlflow.tracking_uri")


@dataclass(frozen=True)
class Documented:
    """A row of a table: a key, its default, and the values it takes."""

    key: str
    default: Any
    values: str

    @property
    def kinds(self) -> list[str]:
        return self.values.split(" or ")

    @property
    def choices(self) -> list[Any]:
        return [yaml.safe_load(word) for word in re.findall(r"`([^`]+)`", self.values)]

    def bound(self, sign: str) -> float | None:
        found = re.search(rf"(?<![<>]){sign} (\d+)", self.values)
        return int(found[1]) if found else None


def rows() -> list[Documented]:
    found: list[Documented] = []
    section = ""
    for line in TEXT.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`")
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[0] not in ("key", "---"):
            found.append(Documented(f"{section}.{cells[0].strip('`')}", yaml.safe_load(cells[1].strip("`")), cells[2]))
    return found


ROWS = rows()


def load(key: str, value: Any) -> Any:
    """The value of a key that was set to another."""
    keys = DEMO_KEYS if key in DEMO_KEYS else (key,)
    config = load_config(None, [f"{each}={yaml.safe_dump(value, default_flow_style=True)}" for each in keys]).config
    return get(config, key)


def get(config: TrainConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), "register_" if name == "register" else name)


def taken(row: Documented) -> list[Any]:
    """Values that the page says are taken, on the edges of what it says."""
    good = list(row.choices)
    for kind in row.kinds:
        word = kind.removeprefix("even ").split()[0].strip(",")
        if word in STEP:
            step = 2 if kind.startswith("even") else STEP[word]
            above, at_least, below, at_most = (row.bound(sign) for sign in (">", ">=", "<", "<="))
            far = FAR - 1 if kind.startswith("even") else FAR
            low = -far if above is None and at_least is None else at_least if above is None else above + step
            high = far if below is None and at_most is None else at_most if below is None else below - step
            good += [low, high]
        good += {"text": ["words"], "list": [["a", "b"]], "mapping": [{"a": "b"}]}.get(word, [])
    if "text" in row.values and "not empty" not in row.values and not row.key.startswith(FILES):
        good.append("")
    return good


def refused(row: Documented) -> list[Any]:
    """Values that the page does not allow, close beyond the edges of what it says."""
    bad: list[Any] = [{"a": {"b": ["c"]}}] if "mapping" not in row.values else ["words"]
    if "list" not in row.values:
        bad.append(["a"])
    if "`null`" not in row.values:
        bad.append(None)
    if "text" not in row.values and row.key.split(".")[0] != "mlflow":
        bad.append("nonsense")
    if "not empty" in row.values:
        bad.append("")
    for kind in row.kinds:
        word = kind.removeprefix("even ").split()[0]
        if word in STEP:
            bad += [True, float("nan"), float("inf")]
            bad += [1.5] if word == "integer" else []
            bad += [row.bound(sign) for sign in (">", "<") if row.bound(sign) is not None]
            bad += [row.bound(sign) + step * STEP[word] for sign, step in ((">=", -1), ("<=", 1)) if row.bound(sign)]
            bad += [-STEP[word]] if row.bound(">=") == 0 else []
            bad += [3] if kind.startswith("even") else []
    return bad


def test_the_page_lists_every_key_in_order() -> None:
    assert [row.key for row in ROWS] == known_dotted_keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_the_default_is_the_documented_one(row: Documented) -> None:
    default = get(TrainConfig(), row.key)
    assert default == row.default
    assert type(default) is type(row.default)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_what_the_page_allows_is_taken(row: Documented) -> None:
    values = taken(row)
    assert values
    for value in values:
        found = load(row.key, value)
        if row.key.startswith(FILES) and value is not None:
            assert Path(found).name == value
        else:
            assert (list(found) if isinstance(value, list) else found) == value


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_what_the_page_does_not_allow_is_refused(row: Documented) -> None:
    values = refused(row)
    assert values
    for value in values:
        with pytest.raises(ConfigError, match=row.key.partition(".")[0]):
            load(row.key, value)


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row.default, str)], ids=lambda row: row.key)
def test_the_page_lists_every_choice(row: Documented) -> None:
    with pytest.raises(ConfigError) as caught:
        load(row.key, ["no", "text"])
    assert re.findall(r"'([^']+)'", caught.value.expected) == row.choices


def test_the_page_names_every_legacy_key_that_has_no_section() -> None:
    named = set(re.findall(r"`([^`]+)`", TEXT.split("## Legacy files")[1]))
    assert {*legacy.UNUSED, *legacy.ALIASES} <= named


RECIPES = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", [path for path in RECIPES if path.name != "default.yaml"], ids=lambda path: path.name)
def test_a_recipe_changes_a_default_and_says_which(path: Path) -> None:
    lines = re.findall(r"^  (\w+): *(\S+) *(?:# default ([^\s:]+))?", path.read_text(), flags=re.MULTILINE)
    defaults = load_config().config.to_dict()
    changed = [
        (name, value, defaults[section][name])
        for section, values in yaml.safe_load(path.read_text()).items()
        for name, value in values.items()
    ]
    assert [(name, yaml.safe_load(value), yaml.safe_load(said)) for name, value, said in lines] == changed
    assert all(value != default for _, value, default in changed)
