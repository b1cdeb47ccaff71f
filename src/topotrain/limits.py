"""How much of anything is read or made before it is refused, each raised by a variable of the environment.

A limit stands between an input that somebody wrote and what this machine would spend on it. All of them are here, so
that ``docs/limits.md`` can be held against them: declare one, ask it with ``value``, and end what is said of an input
over it with ``raise_it``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from topotrain.errors import ConfigError

PREFIX = "TOPOTRAIN_MAX_"
WHOLE = re.compile(r"[0-9]{1,18}")
KiB, MiB, GiB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: of its variable, after ``TOPOTRAIN_MAX_``.
        default: where the variable is not set.
        what: it counts, in words.
    """

    name: str
    default: int
    what: str

    @property
    def variable(self) -> str:
        """The variable of the environment that sets another."""
        return PREFIX + self.name

    @property
    def value(self) -> int:
        """The limit in force.

        Raises:
            ConfigError: the variable holds no whole number.
        """
        text = os.environ.get(self.variable, "").strip()
        if not text:
            return self.default
        if not WHOLE.fullmatch(text) or int(text) == 0:
            raise ConfigError(
                f"{self.variable} is {text[:40]!r}", f"a whole number of {self.what}", f"the default is {self.default}"
            )
        return int(text)

    @property
    def raise_it(self) -> str:
        """What to do about an input that is over it and meant to be."""
        return f"{self.variable} raises the limit"


# Texts that people and programs write: YAML, JSON, CSV, and the numbers in them.
YAML_BYTES = Limit("YAML_BYTES", 1 * MiB, "bytes in one YAML text")
YAML_VALUES = Limit("YAML_VALUES", 100_000, "values in one YAML text, aliases and merges written out")
JSON_BYTES = Limit("JSON_BYTES", 32 * MiB, "bytes in one JSON file, or of one member of graph metadata")
SIDECAR_BYTES = Limit("SIDECAR_BYTES", 4 * GiB, "bytes in one graph_metadata.json")
CSV_BYTES = Limit("CSV_BYTES", 128 * MiB, "bytes in one CSV file")
CSV_LINE = Limit("CSV_LINE", 1 * MiB, "characters in one line of a CSV file")
CSV_CELL = Limit("CSV_CELL", 128 * KiB, "characters in one cell of a CSV file")
DEPTH = Limit("DEPTH", 50, "values within values, in YAML and JSON")
DIGITS = Limit("DIGITS", 400, "characters of one number")
ADDRESS = Limit("ADDRESS", 4096, "characters of a tracking URI")
NAME = Limit("NAME", 1024, "characters of a decoy's name")

# What a run may ask of a machine, and a command of a server.
NUMBER = Limit("NUMBER", 2**32, "the largest whole number in a configuration, above or below zero")
LAYERS = Limit("LAYERS", 1000, "layers of one network")
WORKERS = Limit("WORKERS", 256, "processes at once: data loaders of a run, devices it trains on, jobs of a command")
TRIALS = Limit("TRIALS", 10_000, "trials of one tuning")
PARTS = Limit("PARTS", 100, "seeds, and folds, of one trial")
GRID_POINTS = Limit("GRID_POINTS", 100_000, "points of the grid of one search space")
SECONDS = Limit("SECONDS", 7 * 86_400, "seconds between two looks")

# Folders and archives of files.
FOLDER_DEPTH = Limit("FOLDER_DEPTH", 100, "folders within folders")
FOLDER_WAYS = Limit("FOLDER_WAYS", 1000, "ways that links lead to one folder")
ARCHIVE_ENTRIES = Limit("ARCHIVE_ENTRIES", 200_000, "entries of one archive")
ARCHIVE_BYTES = Limit("ARCHIVE_BYTES", 16 * GiB, "bytes that one archive unpacks to")
ARCHIVE_HEADER = Limit("ARCHIVE_HEADER", 1 * MiB, "bytes of the header of one entry of a tar archive")

# Structures.
STRUCTURE_BYTES = Limit("STRUCTURE_BYTES", 256 * MiB, "bytes in one structure file, packed and unpacked")
STRUCTURE_ATOMS = Limit("STRUCTURE_ATOMS", 1_500_000, "atoms in one structure file")
STRUCTURE_CELLS = Limit("STRUCTURE_CELLS", 32_000_000, "cells of the atom table of one mmCIF file")
STRUCTURE_RESIDUES = Limit("STRUCTURE_RESIDUES", 100_000, "residues in one structure")
STRUCTURE_CROWD = Limit("STRUCTURE_CROWD", 1000, "heavy atoms in a cube of 10 Angstrom")  # of a protein: some 60

# Graphs, checkpoints and what a served model is asked.
GRAPH_BYTES = Limit("GRAPH_BYTES", 1 * GiB, "bytes in one graph file")
CHECKPOINT_BYTES = Limit("CHECKPOINT_BYTES", 4 * GiB, "bytes in one checkpoint")
PICKLE_BYTES = Limit(
    "PICKLE_BYTES", 32 * MiB, "bytes of the pickled part of a torch file; of one from before torch 1.6, all of it"
)
METADATA_VALUES = Limit("METADATA_VALUES", 100_000, "values in one graph's metadata, a text counting one by 100")
GRAPH_CACHE_BYTES = Limit("GRAPH_CACHE_BYTES", 2 * GiB, "bytes of graphs that score keeps for another call")
ROW_BYTES = Limit("ROW_BYTES", 64 * MiB, "bytes that one row of a request unpacks to")
ROW_EDGES = Limit("ROW_EDGES", 200_000, "edges, and nodes, of one row of a request")
REQUEST_BYTES = Limit("REQUEST_BYTES", 256 * MiB, "bytes that the rows of one request unpack to")
