"""What a run may rely on: that it has the device's buffers to itself, and that float32 means float32."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.RLock()
_last: dict[torch.device, torch.cuda.Event] = {}


@contextlib.contextmanager
def exclusive(device: torch.device) -> Iterator[None]:
    """Hold the only run on this device, with TF32 switched off for the products and convolutions that torch runs.

    By default cuDNN rounds the inputs of float32 convolutions to TF32, 10 bits: errors of 1e-3 of a logit, by which
    nearly every hundredth prediction would have to be settled. torch's setting holds for the whole process, so that
    threads must not undo it for each other.
    """
    backends = torch.backends
    switches = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]  # type: ignore[attr-defined]
    place = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with _lock, place:
        before = [switch.fp32_precision for switch in switches]
        for switch in switches:
            switch.fp32_precision = "ieee"
        if device in _last:  # another stream may still read the buffers that graphs write
            torch.cuda.current_stream().wait_event(_last[device])
        try:
            yield
        finally:
            for switch, precision in zip(switches, before, strict=True):
                switch.fp32_precision = precision
            if device.type == "cuda":
                _last[device] = torch.cuda.current_stream().record_event()
