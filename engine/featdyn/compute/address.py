"""Whether a Dask scheduler answers at an address, found out before Dask tries: it would wait for what never comes."""

from __future__ import annotations

import socket
import struct

from distributed.comm.addressing import parse_address, parse_host_port
from distributed.comm.registry import backends
from distributed.security import Security

from featdyn.errors import ComputeError

LARGEST = 2**20
"""Bytes of a scheduler's greeting, at most; it takes a few hundred. What another server says is taken for far more."""


def check(address: str, patience: float) -> None:
    """Raise :class:`ComputeError` unless an address can be one of a scheduler, and, with ``tcp://``, is one.

    A scheduler speaks first, and begins with the length of what it says (uint64, little-endian); a web server, such as
    that of the dashboard, waits to be asked.
    """
    scheme, place = parse_address(address)
    if scheme not in backends:
        raise ComputeError(f"{address}: no such kind of address; write tcp://host:8786")
    if scheme not in ("tcp", "tls"):
        return
    try:
        host, port = parse_host_port(place)
    except ValueError:
        host, port = "", 0
    if not host or not 0 < port < 2**16:
        raise ComputeError(f"{address}: not a host and its port; write {scheme}://host:8786")
    try:
        with socket.create_connection((host, port), patience) as connection:
            said = connection.recv(8, socket.MSG_WAITALL) if scheme == "tcp" else b""
    except TimeoutError:
        raise ComputeError(
            f"{address}: no workers (nothing there speaks as a Dask scheduler does: is it the dashboard's port?)"
        ) from None
    except (OSError, UnicodeError) as error:
        raise ComputeError(f"{address}: no workers ({getattr(error, 'strerror', None) or error})") from error
    if scheme == "tls" and Security().get_connection_args("client").get("ssl_context") is None:
        raise ComputeError(f"{address}: no workers (Dask's configuration, distributed.comm.tls, names no certificates)")
    if scheme == "tcp" and (len(said) < 8 or struct.unpack("<Q", said)[0] > LARGEST):
        raise ComputeError(f"{address}: no workers (what answers there is no Dask scheduler)")
