"""Registration, parameters, selection, and modules of other packages."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from kit.structures import helix_pair, pdb_text
from topotrain.data.graph_file import read_graph
from topotrain.errors import SchemaError, UserInputError
from topotrain.features import build_graphs, build_recorded_graphs, list_modules
from topotrain.features.module_set import describe_set, recorded_modules, select_modules
from topotrain.features.parameters import Parameters, describe_parameters, read_parameters
from topotrain.features.registry import broken_packages, find_module

SHIPPED_WIDTHS = {
    "interface/polar_cutoff/v1": None,
    "topology/persistence_basic/v1": 140,
    "topology/none/v1": 0,
    "node/dssp_topo_merge/v1": 172,
    "node/plddt/v1": 174,
    "edge/legacy_band/v11": 11,
    "edge/multi_scale/v24": 24,
    "edge/distance/v1": 1,
    "edge/plus_topo_min/v1": 434,
}
THIRD_PARTY = '''
"""A module of another package."""
from topotrain.features.modules import EdgeModule
from topotrain.features.parameters import Parameters
from pydantic import Field


class SquaredParameters(Parameters):
    distance_max: float = Field(9.0, description="greatest distance, Angstrom")


class SquaredDistance(EdgeModule):
    name = "squared_distance"
    version = "v2"
    alias = "squares"
    summary = "Squared C-alpha distance."
    parameters = SquaredParameters

    def columns(self, topology_columns):
        return ("squared_distance",)

    def compute(self, context, source, target, distance):
        return (distance**2)[:, None]


class NoVersion(SquaredDistance):
    version = ""


class OldParameters(SquaredDistance):
    version = "v1"
    parameters = ()
'''


def test_shipped_modules_and_widths() -> None:
    found = {item.id: item for item in list_modules() if item.package == "topotrain"}
    assert {identifier: item.width for identifier, item in found.items()} == SHIPPED_WIDTHS
    for item in found.values():
        assert item.alias
        assert item.summary
        assert len(set(item.columns)) == len(item.columns)
        assert all(parameter["summary"] for parameter in item.parameters.values())
    assert [item.id for item in found.values() if item.orientation_dependent] == ["edge/multi_scale/v24"]
    assert [item.id for item in list_modules("topology")] == [
        "topology/persistence_basic/v1",
        "topology/none/v1",
    ]


def test_importing_features_is_cheap() -> None:
    heavy = "torch torch_geometric gudhi biotite mdtraj gemmi scipy pandas click mlflow"
    code = (
        "import sys, topotrain.features as f; f.list_modules(); "
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == "[]"


def _environment(*folders: Path) -> dict[str, str]:
    import os

    import topotrain

    source = str(Path(topotrain.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([*map(str, folders), source])}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"edge.distnce_max": "9"}, "did you mean 'distance_max'?"),
        ({"edge.distance_max": "far"}, "parameter distance_max is 'far'"),
        ({"edge.distance_max": "true"}, "a number"),
        ({"edge.distance_max": "-1"}, "at least 0"),
        ({"edge.scale_features": "3"}, "true or false"),
        ({"edge.histogram_bins": "[1, 3, 2]"}, "ascending"),
        ({"node.dssp": "mkdsp"}, "one of builtin, mkdssp"),
        ({"edgy.distance_max": "9"}, "did you mean 'edge'?"),
        ({"distance_max": "9"}, "names no module"),
        ({"edge.distance_max": "[1"}, "not YAML"),
    ],
)
def test_bad_settings_are_refused(setting: dict[str, str], said: str) -> None:
    with pytest.raises(UserInputError) as caught:
        select_modules(settings=setting)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_module_without_parameters_says_so() -> None:
    with pytest.raises(UserInputError, match="it takes no parameters"):
        select_modules(topology_module="topology/none/v1", settings={"topology.radius": 3})


def test_settings_are_read_by_type() -> None:
    modules = select_modules(
        settings={"edge.distance_max": "8", "edge.histogram_bins": "[1, 2, 4]", "edge.scale_features": "true"}
    )
    assert modules.edge.params == {
        "distance_max": 8.0, "distance_min": 0.0, "histogram_bins": [1, 2, 4], "scale_features": True,
    }  # fmt: skip
    assert modules.edge_columns == ("ca_distance", "count_1_2", "count_2_4", "count_4_inf")
    assert isinstance(modules.edge.params["distance_max"], float)
    assert all(isinstance(edge, int) for edge in modules.edge.params["histogram_bins"])


class OthersParameters(Parameters):
    """Types that no shipped module has."""

    turns: int = Field(3, ge=1, le=9, description="how often")
    word: str = Field("7", description="any text")
    share: float = Field(0.5, gt=0, lt=1, description="of the whole")
    weights: list[float] = Field([2.0, 1.0], description="in any order")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"turns": "9.5"}, "parameter turns is '9.5'; expected a valid integer; the default is 3"),
        ({"turns": "10"}, "expected less than or equal to 9"),
        ({"share": 0.0}, "parameter share is 0.0; expected greater than 0; the default is 0.5"),
        ({"share": "half"}, "parameter share is 'half'; expected a number;"),
        ({"weights": "[1, x]"}, "parameter weights is '[1, x]'; expected a valid number; the default is [2.0, 1.0]"),
        ({"wrd": 1}, "expected one of turns, word, share, weights; did you mean 'word'?"),
    ],
)
def test_parameters_may_have_any_type_of_pydantic(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserInputError) as caught:
        read_parameters(OthersParameters, given, "edge/others/v1")
    assert str(caught.value).startswith("edge/others/v1")
    assert said in str(caught.value)


def test_a_text_is_taken_as_it_is_where_it_fits() -> None:
    given = {"turns": "4", "word": "1.50", "weights": "[3, 1]"}
    found = read_parameters(OthersParameters, given, "edge/others/v1")
    assert found == {"turns": 4, "word": "1.50", "share": 0.5, "weights": [3.0, 1.0]}
    assert read_parameters(OthersParameters, found, "edge/others/v1") == found
    listed = describe_parameters(OthersParameters)
    assert {name: facts["type"] for name, facts in listed.items()} == {
        "turns": "int", "word": "str", "share": "float", "weights": "list[float]",
    }  # fmt: skip
    assert listed["turns"] == {"default": 3, "summary": "how often", "type": "int"}


@pytest.mark.parametrize("field", [Field(1.0), Field(description="no default")])
def test_a_parameter_without_default_or_description_is_refused(field: Any) -> None:
    with pytest.raises(TypeError, match="Incomplete: parameter size needs a default and a description"):
        type("Incomplete", (Parameters,), {"__annotations__": {"size": float}, "size": field, "__module__": __name__})


def test_recorded_parameters_keep_their_order_and_kinds() -> None:
    """Digests of graphs and ids of builds are made of this text."""
    given = {"edge.histogram_bins": "[0, 1.0, 2.50]", "edge.scale_features": "yes"}
    assert json.dumps(select_modules(settings=given).edge.params) == (
        '{"distance_max": 10.0, "distance_min": 0.0, "histogram_bins": [0.0, 1.0, 2.5], "scale_features": true}'
    )
    bands = "[{max_distance: 5, min_distance: 0, label: 7}]"
    found = select_modules(edge_module="24D Scalars", settings={"edge.bands": bands, "edge.histogram_bins": "[1, 2]"})
    assert json.dumps(found.edge.params) == (
        '{"bands": [{"label": "7", "max_distance": 5.0, "min_distance": 0.0}], "contact_threshold": 5.0, '
        '"histogram_bins": [1.0, 2.0], "include_inverse_distance": true, "include_unit_vector": true, '
        '"unit_vector_epsilon": 1e-08}'
    )


@pytest.mark.parametrize(
    "bands",
    ["[]", "short", "[3]", "[{label: a}]", "[{label: a, min_distance: 5, max_distance: 5}]",
     "[{label: a, min_distance: -1, max_distance: 5}]", "[{label: a, min_distance: 0, max_distance: true}]",
     "[{label: a, min_distance: 0, max_distance: 5, color: red}]"],
)  # fmt: skip
def test_bad_bands_are_refused(bands: str) -> None:
    with pytest.raises(UserInputError, match="expected a list of mappings with label, max_distance, min_distance;"):
        select_modules(edge_module="24D Scalars", settings={"edge.bands": bands})


def test_unknown_modules_and_versions() -> None:
    with pytest.raises(UserInputError, match="did you mean 'edge/legacy_band/v11'?"):
        find_module("edge", "edge/legacy_bnd/v11")
    with pytest.raises(UserInputError, match="the installed version edge/legacy_band/v11"):
        find_module("edge", "edge/legacy_band/v12")
    assert find_module("edge", "24d scalars") is find_module("edge", "edge/multi_scale/v24")


class TestRecorded:
    def test_round_trip(self) -> None:
        modules = select_modules(edge_module="edge/multi_scale/v24", settings={"topology.neighbor_distance": "7"})
        again = recorded_modules(describe_set(modules, jobs=4))
        assert again.specification() == modules.specification()

    @pytest.mark.parametrize("kind", ["interface", "topology", "node", "edge"])
    def test_missing_module_is_named(self, kind: str) -> None:
        registry: dict[str, Any] = describe_set(select_modules())
        registry[kind] |= {
            "id": f"{kind}/of_others/v3",
            "package": "others-package",
            "package_version": "1.2",
        }
        with pytest.raises(SchemaError) as caught:
            recorded_modules(registry)
        assert f"{kind}/of_others/v3" in str(caught.value)
        assert "others-package 1.2" in str(caught.value)

    def test_other_version_is_refused(self) -> None:
        registry: dict[str, Any] = describe_set(select_modules())
        registry["edge"]["id"] = "edge/legacy_band/v12"
        with pytest.raises(SchemaError, match="installed is edge/legacy_band/v11"):
            recorded_modules(registry)

    def test_unknown_recorded_parameter_is_refused(self) -> None:
        registry: dict[str, Any] = describe_set(select_modules())
        registry["topology"]["params"] = {"dedup_sort": False}
        with pytest.raises(SchemaError, match="dedup_sort"):
            recorded_modules(registry)

    def test_no_record(self) -> None:
        with pytest.raises(SchemaError, match="records no interface module"):
            recorded_modules({})

    def test_the_real_summary_is_understood(self, shared_data: Path) -> None:
        path = next((shared_data / "real_docking" / "logs").rglob("graph_builder_summary.json"))
        modules = recorded_modules(json.loads(path.read_text())["modules"])
        assert modules.specification() == select_modules().specification()


def install(folder: Path, target: Path, entry_point: str) -> Path:
    """A real wheel of a tiny package, installed by pip into ``target``."""
    wheel = folder / "others_package-1.2-py3-none-any.whl"
    info = "others_package-1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("others_package.py", THIRD_PARTY)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: others-package\nVersion: 1.2\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/entry_points.txt", f"[topotrain.features]\n{entry_point}\n")
        archive.writestr(f"{info}/RECORD", "")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return target


class TestThirdParty:
    def test_installed_package_is_listed_built_and_recorded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identifier = "edge/squared_distance/v2"
        assert identifier not in {item.id for item in list_modules()}
        structures = tmp_path / "structures" / "T1"
        structures.mkdir(parents=True)
        (structures / "m.pdb").write_text(pdb_text(helix_pair()))
        site = install(tmp_path, tmp_path / "site", "squares = others_package:SquaredDistance")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(site))
            info = {item.id: item for item in list_modules()}[identifier]
            assert (info.alias, info.width, info.package, info.package_version) == (
                "squares",
                1,
                "others-package",
                "1.2",
            )
            report = build_graphs(tmp_path / "structures", tmp_path / "graphs", edge_module=identifier)
            registry = describe_set(report.modules)
        graph = read_graph(tmp_path / "graphs" / "T1" / "m.pt")
        assert graph.metadata["edge_module"] == identifier
        assert graph.edge_attr.shape[1] == 1
        assert 0 < float(graph.edge_attr.max()) < 81.0
        monkeypatch.delitem(sys.modules, "others_package")
        with pytest.raises(SchemaError, match="edge/squared_distance/v2 .*others-package 1.2.*not installed"):
            build_recorded_graphs(tmp_path / "structures", tmp_path / "again", registry)

    def test_a_broken_package_leaves_the_others_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        site = install(
            tmp_path,
            tmp_path / "site",
            "bad = others_package:NoVersion\nold = others_package:OldParameters\nworse = nowhere:Thing",
        )
        monkeypatch.syspath_prepend(str(site))
        assert {item.id for item in list_modules()} >= set(SHIPPED_WIDTHS)
        assert broken_packages() == {
            "bad = others_package:NoVersion": "ValueError: NoVersion: name 'squared_distance', version '' "
            "(want a_name, v1)",
            "old = others_package:OldParameters": "TypeError: OldParameters: parameters are no subclass of "
            "topotrain.features.parameters.Parameters",
            "worse = nowhere:Thing": "ModuleNotFoundError: No module named 'nowhere'",
        }
        with pytest.raises(UserInputError, match="could not be loaded: ModuleNotFoundError"):
            find_module("edge", "edge/squared_distance/v2")
        monkeypatch.delitem(sys.modules, "others_package", raising=False)
