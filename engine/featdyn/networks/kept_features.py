"""Features by key, in memory or, where they do not fit, in files that nobody else reads."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Hashable
from pathlib import Path

import torch
from torch import Tensor


class KeptFeatures:
    """Holds tensors until they are taken or cleared; with ``disk`` in a folder of its own for temporary files.

    Different keys may be put and taken by several threads at once. Files are read and written, never mapped: what the
    system keeps of them in memory is no part of the process.
    """

    def __init__(self, *, disk: bool) -> None:
        self._held: dict[Hashable, Tensor] = {}
        self._files: dict[Hashable, tuple[Path, torch.Size, torch.dtype, torch.device]] = {}
        self._folder: Path | None = None
        if disk:
            self._folder = Path(tempfile.mkdtemp(prefix="featdyn-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def put(self, key: Hashable, features: Tensor) -> None:
        """Keep features ``(N, ...)`` in place of what was there."""
        if self._folder is None:
            self._held[key] = features
            return
        file = self._folder / "-".join(map(str, key if isinstance(key, tuple) else (key,)))
        with torch.inference_mode():
            features.cpu().contiguous().view(-1).view(torch.uint8).numpy().tofile(file)
        self._files[key] = file, features.shape, features.dtype, features.device

    def get(self, key: Hashable) -> Tensor:
        """Return what is there, which is not to be written into."""
        if self._folder is None:
            return self._held[key]
        file, shape, dtype, device = self._files[key]
        with torch.inference_mode():
            found = torch.empty(shape, dtype=dtype)
            with open(file, "rb", buffering=0) as content:
                room, done = found.view(-1).view(torch.uint8).numpy().data, 0
                while done < len(room) and (more := content.readinto(room[done:])):
                    done += more
            if done < len(room):
                raise OSError(f"{file}: ends before its features do")
            return found.to(device)

    def take(self, key: Hashable) -> Tensor:
        """Return what is there, and keep it no longer."""
        found = self.get(key)
        self._drop(key)
        return found

    def clear(self) -> None:
        """Keep nothing any longer."""
        for key in [*self._held, *self._files]:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        if self._folder is None:
            del self._held[key]
        else:
            self._files.pop(key)[0].unlink()
