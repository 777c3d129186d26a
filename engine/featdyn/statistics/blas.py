"""Small matrix products on one thread.

OpenBLAS shares out even a 128 x 128 product; its threads then wait for each other longer than they work, the more so
where other processes want the processors too.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_SMALL = 512  # rows up to which one thread does the work
_lock = threading.Lock()
_users = 0
_limit: Any = None


@contextlib.contextmanager
def one_thread(n: int) -> Iterator[None]:
    """Keep BLAS on the calling thread for matrices of up to 512 rows.

    The limit is the process's, so the first to enter sets it and the last to leave lifts it: safe from many threads.
    """
    global _users, _limit
    if n > _SMALL:
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _limit = _controller().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limit.restore_original_limits()


@functools.cache
def _controller() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
