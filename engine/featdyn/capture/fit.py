"""What a storage dtype cannot hold: seen where values are converted, judged for a whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from featdyn.capture.arrays import gradient_scale
from featdyn.capture.options import CaptureOptions
from featdyn.errors import TrainingError
from featdyn.sizes import counted
from featdyn_kernels.summaries import Summaries

VANISHED = 0.1
"""Share of the living samples that is refused (our own choice): a narrow layer has a few that barely live."""


class Fit:
    """How the values of one checkpoint fit what they are stored as, over all samples of one process."""

    def __init__(self, options: CaptureOptions, odd: Callable[[], int] = lambda: 0) -> None:
        self._options = options
        self._odd = odd  # how many probes have inputs that are not finite, asked where outputs are not
        self._largest: dict[str, list[Tensor]] = {}
        self._fine: dict[str, list[Tensor]] = {}  # whether all values of a sample are as they should be

    def see(self, path: str, stored: Tensor, found: Tensor, sums: Summaries | None = None) -> None:
        """Take note of a block of samples: as it is stored, its largest values before, and its sums where there are."""
        kind = path.rpartition("/")[2]
        if kind == "activation":  # infinite ones are by design where the outputs are finite
            fine = ~found.isnan()
        elif kind in ("logits", "top_logits", "target_logit"):  # and so is a class that is masked out
            fine = (stored < torch.inf).view(len(stored), -1).all(1)
        elif sums is not None:
            fine = torch.as_tensor(sums.squares).isfinite()
        else:
            fine = stored.view(len(stored), -1).isfinite().all(1)
        self._largest.setdefault(path, []).append(found.clone())
        self._fine.setdefault(path, []).append(fine)

    def judge(self, checkpoint: int) -> None:
        """Raise :class:`TrainingError` for the first array that does not fit, outputs before layers."""
        for path in sorted(self._largest, key=lambda path: not path.startswith("outputs/")):
            found, fine = torch.cat(self._largest[path]), torch.cat(self._fine[path])
            why = self._wrong(path, found, fine)
            if why:
                raise TrainingError(f"{path} at checkpoint {checkpoint} {why}")

    def _wrong(self, path: str, found: Tensor, fine: Tensor) -> str:
        """Return what is wrong with an array, or nothing."""
        outputs, gradient = path.startswith("outputs/"), path.endswith("/gradient")
        name = "float32" if outputs else self._options.dtype
        dtype, scale = getattr(torch, name), gradient_scale(self._options) if gradient else 1.0
        most = float(found.nan_to_num(nan=0.0).max()) / scale
        if bool(found.to(dtype).isinf().any()):
            limit = f"(largest {torch.finfo(dtype).max:.6g})"
            if scale != 1:
                limit = f"(stored {scale:.0f} times larger, so the largest is 16; here {most:.3g})"
            way = "record with dtype float32" if name == "float16" else "leave the layer out"
            return f"does not fit {name} {limit}: {way}"
        if not bool(fine.all()):
            odd = f"is not finite for {int((~fine).sum())} of {len(fine)} probes"
            if outputs and (inputs := self._odd()):
                return f"{odd}: the inputs of {counted(inputs, 'probe')} hold NaN or infinite values, mend or drop them"
            if outputs:
                return f"{odd}: training has diverged, try a smaller learning rate"
            return f"{odd}, though outputs and loss are: leave the layer out" + ", or gradients=False" * gradient
        if name != "float16":
            return ""
        normal = torch.finfo(dtype).smallest_normal
        living = int((found > 0).sum())
        lost = int(((found > 0) & (found < normal)).sum())
        # Gradients of samples that are fitted well are small beside those of others, as they should be.
        if lost and lost >= (1 if gradient else VANISHED) * living:
            return (
                f"vanishes in float16 for {lost} of {len(found)} probes (no value of theirs reaches "
                f"{normal / scale:.2g}; the largest of all is {most:.2g}): record with dtype float32"
            )
        return ""
