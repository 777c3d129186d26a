"""Machine code on disk, for as long as the sources that it was made of stay the same."""

from __future__ import annotations

import glob
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile

PACKAGE = Path(__file__).parent


def keep(kernel: Any, source: str) -> None:
    """Let a kernel's cache, which Numba has made, look at all files of its operation and at those that they share."""
    operation = Path(source).relative_to(PACKAGE).parts[0]
    path, base = kernel._cache.cache_path, kernel._cache._impl.filename_base
    kernel._cache._cache_file = _CacheFile(path, base, _stamp(operation))


@cache
def _stamp(operation: str) -> int:
    files = {*PACKAGE.glob(f"{operation}/**/*.py"), *PACKAGE.glob("_*.py"), *PACKAGE.glob("_*/**/*.py")}
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(files)))


class _CacheFile(IndexDataCacheFile):
    """The compiled versions of one function on disk: an index, and a file for each.

    Numba numbers the files, and names one in the index before it is written. A process that starts beside another then
    finds the code of older sources there, or of another signature. Here the name says what is in the file.
    """

    def __init__(self, path: str, base: str, stamp: int) -> None:
        super().__init__(path, base, stamp)
        self._base = base
        # Numba looks at this first: classes that older keys are made of may be gone, so they must not be unpickled.
        self._version += f" {stamp}"

    def save(self, key: Any, data: Any) -> None:
        """Keep a compiled version; drop those of other sources."""
        known = self._load_index()
        if not known:
            for old in Path(self._cache_path).glob(f"{glob.escape(self._base)}.*.nbc"):
                old.unlink(missing_ok=True)
        name = self._data_name(zlib.crc32(repr((self._version, key)).encode()))
        self._save_data(name, data)
        self._save_index({**known, key: name})
