"""Files of ``torch.save``, read without running anything they say, and without giving them what they ask for."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from topotrain.errors import DataError
from topotrain.limits import PICKLE_BYTES, Limit
from topotrain.reading.content import open_regular

# What torch takes for harmless and lets a file call with any size: a few bytes then fill the memory.
GREEDY = re.compile(
    rb"c[\w.]+\n(?:bytearray|encode|\w*Tensor|_rebuild_qtensor|_rebuild_nested_tensor|_rebuild_wrapper_subclass"
    rb"|_rebuild_device_tensor_\w+|_rebuild_from_type_v2)\n"
)
NAMED = re.compile(r"GLOBAL ([\w.]+)")
PICKLE = "data.pkl"


class ExecutableError(Exception):
    """A file names what is neither a tensor nor a plain value; the text is the name."""


def load_tensors(path: Path, limit: Limit, allowed: Sequence[type] = ()) -> Any:
    """What a file of ``torch.save`` holds.

    Args:
        path: the file.
        limit: of its bytes.
        allowed: classes that it may name beside tensors and plain values.

    Raises:
        FileNotFoundError: there is none.
        DataError: no regular file, or over a limit.
        ExecutableError: it names anything else.
        Exception: anything, of a file that is none.
    """
    with _opened(path) as file:
        _refuse_bomb(path, file, limit)
        try:
            with torch.serialization.safe_globals(list(allowed)), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            if named := NAMED.search(str(error)):
                raise ExecutableError(named[1]) from None
            if "unsafe" in str(error).lower():
                raise ExecutableError("something executable") from None
            raise


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except ValueError as error:  # a folder, a pipe, a path that no file can have
        why = str(error).removeprefix("no regular file")
        raise DataError(f"{path}: no regular file" + (f" ({why})" if why else ""), "a file of torch.save") from None


def _refuse_bomb(path: Path, file: BinaryIO, limit: Limit) -> None:
    """Refuse what takes more memory than it is long; torch stores tensors uncompressed."""
    size = file.seek(0, 2)
    file.seek(0)
    if size > limit.value:
        raise DataError(f"{path}: {size} bytes, over {limit.value}", "less", limit.raise_it)
    pickled = size
    if zipped := zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise DataError(f"{path}: unpacks to {unpacked} bytes, more than it holds", "a file written by torch.save")
        pickled = max((part.file_size for part in parts if part.filename.endswith(PICKLE)), default=0)
    if pickled > PICKLE_BYTES.value:
        what = f"{path}: {pickled} bytes of pickled values, over {PICKLE_BYTES.value}"
        raise DataError(what, "tensors and few plain values", PICKLE_BYTES.raise_it)
    file.seek(0)
    # As torch finds it: another reader of zip files may be led to another part.
    text = torch._C.PyTorchFileReader(file).get_record(PICKLE) if zipped else file.read()
    file.seek(0)
    if greedy := GREEDY.search(text):
        raise ExecutableError(greedy[0][1:].decode().strip().replace("\n", "."))
