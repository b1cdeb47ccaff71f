"""The original program, where it is asked for: ``node.dssp=mkdssp``."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topotrain.errors import DataError, UserInputError
from topotrain.features.dssp import SS8_CODES, relative_to_maximum
from topotrain.features.structure import FloatArray, Structure
from topotrain.scratch import scratch

PROGRAM = "mkdssp"
TIMEOUT_SECONDS = 300
# mkdssp writes 360.0 where an angle is undefined.
UNDEFINED_ANGLE = 360.0
# mkdssp 4 refuses a PDB file without these records.
HEADER = "HEADER    PROTEIN COMPLEX                         01-JAN-00   XXXX              \n"
CRYST = "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1          \n"


@dataclass(frozen=True)
class DsspTable:
    """What mkdssp says of each residue.

    Attributes:
        codes: (num_residues,) codes of ``SS8_CODES``; "-" where mkdssp left the residue out.
        accessibility: (num_residues,) relative, in [0, 1].
        phi: (num_residues,) degrees, 0 where undefined.
        psi: (num_residues,) degrees, 0 where undefined.
        known: (num_residues,) whether mkdssp has the residue.
    """

    codes: npt.NDArray[np.str_]
    accessibility: FloatArray
    phi: FloatArray
    psi: FloatArray
    known: npt.NDArray[np.bool_]


def require_mkdssp() -> None:
    """Look for the program.

    Raises:
        UserInputError: it is not installed.
    """
    if shutil.which(PROGRAM) is None:
        raise UserInputError(
            "node.dssp=mkdssp: the program mkdssp is not installed",
            "mkdssp 4 on the PATH",
            "apt-get install dssp, or leave node.dssp at its default",
        )


def run_mkdssp(structure: Structure) -> DsspTable:
    """Run mkdssp on the heavy atoms of a structure.

    Args:
        structure: the structure; written to a temporary PDB file with one-letter chains and running numbers, so that
            insertion codes and long chain names cannot confuse the program.

    Raises:
        UserInputError: the program is not installed.
        DataError: the program refuses the structure.
    """
    require_mkdssp()
    with scratch("dssp") as folder:
        source, target = folder / "in.pdb", folder / "out.dssp"
        source.write_text(_as_pdb(structure), encoding="ascii")
        try:
            done = subprocess.run(  # noqa: S603  fixed program, files of our own
                [PROGRAM, "--output-format", "dssp", str(source), str(target)],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(f"{structure.path}: mkdssp took over {TIMEOUT_SECONDS} s") from error
        if done.returncode or not target.is_file():
            raise DataError(
                f"{structure.path}: mkdssp failed: {(done.stderr or done.stdout).strip()[-300:]}",
                "a structure that mkdssp accepts",
                "leave node.dssp at its default",
            )
        return _parse(structure, target.read_text())


def _as_pdb(structure: Structure) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    chains = list(dict.fromkeys(structure.chain_ids.tolist()))
    if len(chains) > len(letters) or structure.num_residues > 9999 or len(structure.coords) > 99999:
        raise DataError(
            f"{structure.path}: too large for a PDB file",
            "up to 62 chains, 9,999 residues, 99,999 atoms",
            "leave node.dssp at its default",
        )
    lines = [HEADER, CRYST]
    columns = zip(structure.atom_names, structure.elements, structure.atom_residues, structure.coords, strict=True)
    for serial, (name, element, residue, (x, y, z)) in enumerate(columns, start=1):
        padded = f" {name:<3}" if len(element) == 1 and len(name) < 4 else f"{name:<4}"
        letter = letters[chains.index(structure.chain_ids[residue])]
        lines.append(
            f"ATOM  {serial:5d} {padded} {structure.residue_names[residue]:>3.3} {letter}{residue + 1:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {element:>2}\n"
        )
    return "".join(lines) + "END\n"


def _parse(structure: Structure, text: str) -> DsspTable:
    size = structure.num_residues
    codes, known = np.full(size, "-"), np.zeros(size, dtype=bool)
    areas, phi, psi = np.zeros(size), np.zeros(size), np.zeros(size)
    _, _, table = text.partition("  #  RESIDUE AA STRUCTURE")
    for line in table.splitlines()[1:]:
        if line[13] == "!":
            continue
        residue = int(line[5:10]) - 1
        codes[residue] = line[16] if line[16] in SS8_CODES else "-"
        areas[residue], known[residue] = float(line[34:38]), True
        phi[residue], psi[residue] = float(line[103:109]), float(line[109:115])
    phi[phi == UNDEFINED_ANGLE] = 0.0
    psi[psi == UNDEFINED_ANGLE] = 0.0
    return DsspTable(codes, relative_to_maximum(areas, structure.residue_names), phi, psi, known)
