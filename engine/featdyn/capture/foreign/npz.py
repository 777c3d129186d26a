"""Members of ``.npz`` archives: compressed as they may be, one is read from any row on only once it is unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from featdyn.capture.foreign.recorded import readable
from featdyn.errors import DataError

_PIECE = 2**22  # bytes that are unpacked at a time
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Scratch:
    """Room on disk for the members of one archive at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._of = folder, Path()

    def unpacked(self, archive: Path, member: str) -> Path:
        """Return a member as a file."""
        if archive != self._of:
            for file in self._folder.iterdir():
                file.unlink()
            self._of = archive
        with readable(archive), zipfile.ZipFile(archive) as held:
            path = self._folder / f"{held.namelist().index(member)}.npy"
            if not path.exists():
                part = path.with_suffix(".part")
                with held.open(member) as packed, part.open("wb") as out:
                    while piece := packed.read(_PIECE):
                        out.write(piece)
                part.rename(path)
        return path


class Member:
    """An array in an archive, of which the header is read at first."""

    def __init__(self, archive: Path, name: str, scratch: Scratch) -> None:
        self._archive, self._name, self._scratch = archive, name, scratch
        with readable(archive), zipfile.ZipFile(archive) as held, held.open(name) as file:
            header = _HEADERS.get(npy.read_magic(file))
            if header is None:
                raise DataError(f"{archive}: {name} is of another version of .npy than 1 and 2")
            self.shape, _, self.dtype = header(file)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read what is asked for, from the unpacked member."""
        return np.asarray(np.load(self._scratch.unpacked(self._archive, self._name), mmap_mode="r")[index])
