"""Structures with the importance of their residues in place of B-factors, and scripts that show them so.

What is written is what the model saw: heavy atoms of residues of chains, under the chains and numbers of its graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from topotrain.disk import EXPECTED
from topotrain.errors import DataError
from topotrain.features.structure import Structure
from topotrain.files import write_whole
from topotrain.scoring.explain import Explanation

SCALE = 100.0  # hundredths of a DockQ: a B-factor of a PDB file has two decimals
PYMOL_SCRIPT, CHIMERAX_SCRIPT = "view.pml", "view.cxc"
UNUSUAL = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_NAME = 100  # characters, without suffix
PDB_CHAIN, PDB_NUMBER = 2, 9999  # what a PDB file has columns for
LOW, MIDDLE, HIGH = "blue", "white", "red"


@dataclass(frozen=True)
class Annotated:
    """One file that was written.

    Attributes:
        name: of the file: letters, digits, dots, hyphens and underscores alone.
        largest: the greatest importance in it, of either sign, as its B-factors have it.
    """

    name: str
    largest: float


class Annotations:
    """A folder of structures whose B-factors are importances.

    Args:
        folder: where they are written; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: set[str] = set()

    def write(self, key: str, structure: Structure, explanation: Explanation, *, mmcif: bool) -> Annotated:
        """Write one structure.

        Args:
            key: of its graph; the file's name is made of it.
            structure: as it was read.
            explanation: of its score; residues that are not in it get 0.
            mmcif: whether as mmCIF, as its own file was; else as PDB, where its names fit into one.

        Raises:
            DataError: it can't be written.
        """
        values = {f"{one.chain}:{one.number}": value * SCALE for one, value in explanation.residues}
        factors = np.array([values.get(one, 0.0) for one in structure.residue_ids])
        long = max(map(len, structure.chain_ids)) > PDB_CHAIN or int(structure.residue_numbers.max()) > PDB_NUMBER
        as_mmcif = mmcif or long
        name = self._free_name(key, ".cif" if as_mmcif else ".pdb")
        made = _gemmi_structure(name, structure, factors)
        text = made.make_mmcif_document().as_string() if as_mmcif else made.make_pdb_string()
        self.add(name, text)
        return Annotated(name, float(np.abs(factors).max(initial=0.0)))

    def add(self, name: str, text: str) -> None:
        """Write a file of the folder, whole or not at all.

        Raises:
            DataError: it can't be written.
        """
        try:
            write_whole(self.folder / name, text.encode())
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"{self.folder / name}: can't be written ({why})", EXPECTED, "choose another") from None

    def finish(self, shown: Sequence[Annotated]) -> None:
        """Write the scripts of PyMOL and ChimeraX, which open some of the files.

        Args:
            shown: these files, the best first.

        Raises:
            DataError: they can't be written.
        """
        largest = max([one.largest for one in shown if one.largest] or [1.0])
        names = [one.name for one in shown]
        self.add(PYMOL_SCRIPT, "\n".join(pymol_lines(names, largest)) + "\n")
        self.add(CHIMERAX_SCRIPT, "\n".join(chimerax_lines(names, largest)) + "\n")

    def _free_name(self, key: str, suffix: str) -> str:
        """Of plain characters alone, so that nothing in it is a command, and no two files share it."""
        plain = UNUSUAL.sub("_", key.replace("/", "__"))[:LONGEST_NAME].lstrip(".-") or "model"
        name, number = plain, 1
        while name.lower() in self._names:
            number += 1
            name = f"{plain}_{number}"
        self._names.add(name.lower())
        return name + suffix


def _gemmi_structure(name: str, structure: Structure, factors: Iterable[float]) -> gemmi.Structure:
    made, model = gemmi.Structure(), gemmi.Model(1)
    made.name = Path(name).stem
    chain = gemmi.Chain("")
    for row, factor in enumerate(factors):
        if chain.name != structure.chain_ids[row]:
            if len(chain):
                model.add_chain(chain)
            chain = gemmi.Chain(str(structure.chain_ids[row]))
        residue = gemmi.Residue()
        residue.name = str(structure.residue_names[row])
        residue.seqid = gemmi.SeqId(int(structure.residue_numbers[row]), str(structure.insertion_codes[row]) or " ")
        residue.entity_type = gemmi.EntityType.Polymer
        for place in range(structure.residue_starts[row], structure.residue_starts[row + 1]):
            atom = gemmi.Atom()
            atom.name, atom.element = str(structure.atom_names[place]), gemmi.Element(str(structure.elements[place]))
            atom.pos, atom.b_iso = gemmi.Position(*structure.coords[place].tolist()), factor
            residue.add_atom(atom)
        chain.add_residue(residue)
    model.add_chain(chain)
    made.add_model(model)
    made.setup_entities()
    return made


def pymol_lines(names: Sequence[str], largest: float) -> list[str]:
    """A script of PyMOL; its objects are ``model_1`` and so on, in the order of the files."""
    return [
        "# In this folder: pymol view.pml. B-factors are importances in hundredths of a DockQ.",
        *(f"load {name}, model_{number}" for number, name in enumerate(names, start=1)),
        "hide everything",
        "show cartoon",
        "color grey80",
        "select interface, b < 0 or b > 0",
        "show sticks, interface",
        f"spectrum b, {LOW}_{MIDDLE}_{HIGH}, interface, minimum={-largest:.2f}, maximum={largest:.2f}",
        "disable all",
        "enable model_1",
        "deselect",
        "zoom model_1",
    ]


def chimerax_lines(names: Sequence[str], largest: float) -> list[str]:
    """A script of ChimeraX; its models are ``#1`` and so on, in the order of the files."""
    others = [f"hide #2-{len(names)} models"] if len(names) > 1 else []
    return [
        "# B-factors are importances in hundredths of a DockQ.",
        *(f"open {name}" for name in names),
        "hide atoms",
        "show cartoons",
        "color lightgray",
        "select @@bfactor<0 | @@bfactor>0",
        "show sel atoms",
        "style sel stick",
        f"color byattribute a:bfactor sel target ac palette {LOW}:{MIDDLE}:{HIGH} range {-largest:.2f},{largest:.2f}",
        "select clear",
        *others,
        "view #1",
    ]
