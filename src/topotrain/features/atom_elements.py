"""Elements of atoms: from the position of a PDB name, and in residues from the name itself."""

from __future__ import annotations

from functools import lru_cache

UNKNOWN_ELEMENT = "X"
HYDROGENS = frozenset({"H", "D"})
# Heavy atoms of the twenty amino acids, under the names of the wwPDB and of force fields.
HEAVY_ATOMS = frozenset(
    "N CA C O OXT CB CG CG1 CG2 CD CD1 CD2 CE CE1 CE2 CE3 CZ CZ2 CZ3 CH2 ND1 ND2 NE NE1 NE2 NZ NH1 NH2 OD1 OD2 "
    "OE1 OE2 OG OG1 OH SD SG OT OT1 OT2 OC1 OC2 O1 O2".split()
)
_NUCLEOTIDE_ELEMENTS = frozenset("CNOPHD")
# The two-letter elements that names at the left edge stand for in residues that are none of the twenty.
_TWO_LETTERS = frozenset("SE BR CL ZN HG FE MG MN NA CA CU NI CO CD AS SI LI AL PT PB AU AG".split())


@lru_cache(maxsize=4096)
def element_by_position(name: str) -> str:
    """The element that the position of a PDB atom name in its four columns says.

    Args:
        name: four characters, in capitals: `` CA `` is carbon, ``CA  `` calcium, ``HG11`` and ``1HB `` hydrogen.
    """
    name = name.ljust(4)[:4]
    if name[0] == " " or name[0].isdigit():
        return _letter(name[1])
    if name[1].isdigit():
        return _letter(name[0])
    if name[3] != " " and name[0] in HYDROGENS:
        return name[0]
    return name[:2] if name[:2] in _TWO_LETTERS else _letter(name[0])


def _letter(letter: str) -> str:
    return letter if letter in "HDCNOSPFIKBVWYU" else UNKNOWN_ELEMENT


@lru_cache(maxsize=65536)
def amino_acid_element(plain: bool, atom: str, written: str) -> str:
    """The element of an atom of an amino acid.

    Args:
        plain: the residue is one of the twenty, not a modified one, so that HG is a hydrogen and no mercury.
        atom: its name, in capitals, without spaces.
        written: what the file says; X for nothing.
    """
    if atom in HEAVY_ATOMS:
        return atom[0]
    letter = atom.lstrip("0123456789'\"*")[:1]
    if letter in HYDROGENS and (plain or written in {UNKNOWN_ELEMENT, *HYDROGENS}):
        return letter
    if written != UNKNOWN_ELEMENT:
        return written
    return "SE" if atom == "SE" else _letter(letter)


@lru_cache(maxsize=4096)
def nucleotide_element(atom: str, written: str) -> str:
    """The element of an atom of a nucleotide; arguments as of :func:`amino_acid_element`."""
    letter = atom.lstrip("0123456789'\"*")[:1]
    return letter if letter in _NUCLEOTIDE_ELEMENTS else written
