"""What residue names mean: the twenty amino acids under all their names, nucleotides, water, caps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

# By one-letter code; the order of the graphs' one-hot columns.
AMINO_ACIDS = {
    "A": "ALA",
    "C": "CYS",
    "D": "ASP",
    "E": "GLU",
    "F": "PHE",
    "G": "GLY",
    "H": "HIS",
    "I": "ILE",
    "K": "LYS",
    "L": "LEU",
    "M": "MET",
    "N": "ASN",
    "P": "PRO",
    "Q": "GLN",
    "R": "ARG",
    "S": "SER",
    "T": "THR",
    "V": "VAL",
    "W": "TRP",
    "Y": "TYR",
}
STANDARD_NAMES = frozenset(AMINO_ACIDS.values())
# Names of force fields and docking programs (Amber, CHARMM, GROMOS, OPLS, HADDOCK) for states of protonation, bridges
# and modifications; what the wwPDB calls a modified residue, gemmi's table knows.
_ALIASES = {
    "ALA": "DDZ",
    "ARG": "ARN ARGN ARGP ARG+",
    "ASP": "ASH ASPH ASPP ASP- ASPM",
    "CYS": "CYX CYM CYZ CYD CYN CYS1 CYS2 CYSH CYSS CYSM CYSX CSE SEC CFE CSP CYC CYF",
    "GLU": "GLH GLUH GLUP GLU- GLUM",
    "HIS": "HID HIE HIP HSD HSE HSP HISA HISB HISD HISE HISH HISP HIS+ HIS1 HIS2 HDP HEP NEP",
    "LYS": "LYN LYP LSN LYSH LYSP LYSN LYS+ HLY PYL",
    "MET": "MSE",
    "PRO": "HYP HY3",
    "SER": "S1P S2P SP1 SP2 PNS",
    "THR": "T1P T2P THP1 THPB TOP",
    "TYR": "Y1P Y2P TYM TP1 TP2 TYP",
}
ALIASES = {alias: name for name, aliases in _ALIASES.items() for alias in aliases.split()}
WATERS = frozenset(
    "HOH DOD WAT H2O HHO TIP TIP2 TIP3 TIP4 TIP5 TP3 TP4 TP5 TP3M T3P T4P SOL SPC SPCE OPC OH2 W".split()
)
CAPS = frozenset("ACE NH2 NME NMA NHE FOR CT1 CT2 CT3 NTE CTE".split())
_NUCLEOTIDE = re.compile(r"[DR]?[ACGUTI][35N]?|ADE|CYT|GUA|THY|URA|URI")
_TERMINI = "NC"  # Amber's NALA and CALA

Kind = Literal["amino", "nucleic", "water", "cap", "other", "unknown"]


@dataclass(frozen=True)
class ResidueName:
    """What a residue name means.

    Attributes:
        kind: ``other`` is a known ligand, sugar or ion; ``unknown`` is in no table.
        standard: the amino acid's name among the twenty; the name itself where it has none (UNK, nucleotides).
        plain: one of the twenty, in any state of protonation: its atom names mean what they always mean.
    """

    kind: Kind
    standard: str
    plain: bool = False


@lru_cache(maxsize=4096)
def residue_name(name: str) -> ResidueName:
    """Look a name up.

    Args:
        name: in capitals, without spaces.
    """
    found = _amino_acid(name)
    if found is None and len(name) == 4 and name[0] in _TERMINI:
        found = _amino_acid(name[1:])
    if found is not None:
        return ResidueName("amino", found, plain=True)
    if name in WATERS:
        return ResidueName("water", name)
    if name in CAPS:
        return ResidueName("cap", name)
    return _tabulated(name)


def is_four_letter_name(name: str) -> bool:
    """Whether four letters are an amino acid's name as force fields write it."""
    return len(name) == 4 and residue_name(name).kind == "amino"


def _amino_acid(name: str) -> str | None:
    return name if name in STANDARD_NAMES else ALIASES.get(name)


def _tabulated(name: str) -> ResidueName:
    import gemmi

    facts = gemmi.find_tabulated_residue(name)
    if facts.is_amino_acid():
        return ResidueName("amino", AMINO_ACIDS.get(facts.one_letter_code.upper(), name))
    if facts.is_nucleic_acid() or _NUCLEOTIDE.fullmatch(name):
        return ResidueName("nucleic", name)
    if facts.is_water():
        return ResidueName("water", name)
    return ResidueName("other" if facts.found() else "unknown", name)
