"""Each kernel on the GPU beside the same kernel on the CPU: the same numbers in, and how far what comes out differs.

A difference is a fraction of the largest number of the CPU's result, or absolute where that is below 1. Tolerances are
those that the tests hold either against float64, twice, as either may use its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.harness import sized

Results = dict[str, Any]


@dataclass(frozen=True)
class Pair:
    """One setting of one operation, and how much of it may differ."""

    name: str
    call: Callable[[str], Results]  # of a backend
    tolerance: float
    share: float = 0.0  # of the elements, which may differ by more: predictions that are nearly tied


def difference(found: Any, expected: Any, pair: Pair) -> dict[str, Any]:
    """Compare one array; what is NaN or infinite has to be so in both, and where it is the same."""
    a, b = (np.asarray(x, np.float64) for x in (found, expected))
    if a.shape != b.shape:
        return {"ok": False, "note": f"shape {a.shape}, on the CPU {b.shape}"}
    odd = ~(np.isfinite(a) & np.isfinite(b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0.0)))
    gap = np.where(odd, np.where(same, 0.0, np.inf), np.abs(np.where(odd, 0.0, a) - np.where(odd, 0.0, b))) / scale
    beyond = int((gap > pair.tolerance).sum())
    return {
        "ok": beyond <= pair.share * gap.size,
        "largest": float(gap.max(initial=0.0)),
        "tolerance": pair.tolerance,
        "beyond": beyond,
        "elements": int(gap.size),
        "equal bits": bool(same.all()),
    }


def host(values: Any) -> Any:
    """Return what a kernel gave as an array of float64, bool or integers in host memory."""
    from featdyn_kernels._dispatch import to_numpy

    return to_numpy(values)


def pairs() -> Iterator[Pair]:
    """Yield all settings; inputs are drawn here, in host memory, and each backend takes them as they are."""
    import torch

    from featdyn_kernels import eigh, kde, moebius, moments, pairwise, paths, summaries

    draw = np.random.default_rng(0)

    def normal(*shape: int, dtype: Any = np.float32) -> Any:
        return draw.standard_normal(shape).astype(dtype)

    n, width = sized((20_011, 517), (37, 5))
    outputs, labels = normal(n, 10), draw.integers(0, 10, n)
    for dtype, tolerance in (("float16", 2e-6), ("bfloat16", 2e-6), ("float32", 2e-6), ("float64", 2e-11)):
        x = torch.from_numpy(normal(n, width) + 3).to(getattr(torch, dtype))
        yield Pair(
            f"moments of {n} x {width} {dtype}",
            lambda b, x=x: moments.accumulate(
                x, torch.from_numpy(outputs).to(x.dtype), labels, classes=10, backend=b
            ).to_dict(),
            tolerance,
        )
    for batch, side in sized(((50, 16), (50, 64), (20, 100), (4, 512)), ((3, 9),)):
        a = normal(batch, side, 2 * side)
        a = a @ a.swapaxes(1, 2) / side

        def decomposed(b: str, a: Any = a) -> Results:
            values, vectors = map(host, eigh.eigh(a, backend=b))
            return {"eigenvalues": values, "rebuilt": (vectors * values[:, None]) @ vectors.swapaxes(1, 2)}

        yield Pair(f"eigh of {batch} of {side} x {side} float32", decomposed, 20 * side**0.5 * 1.2e-7)
    for d in sized((2, 64, 512), (3,)):
        m = sized(3001, 40)
        x, y = normal(m, d), normal(m, d) + np.float32(0.1)
        yield Pair(
            f"kde of {m}, d={d} float32",
            lambda b, x=x, y=y, h=d**0.5: {"log": kde.log_density(x, y, h, backend=b)},
            4e-5,
        )
        members = draw.permuted(np.tile(np.arange(2 * m) < m, (5, 1)), axis=1)

        def contrasts(b: str, x: Any = x, y: Any = y, d: int = d, members: Any = members) -> Results:
            return {
                "mmd2": pairwise.mmd2(x, y, d**0.5, backend=b),
                "mmd2_many": pairwise.mmd2_many(np.concatenate([x, y]), members, d**0.5, backend=b),
                "energy": pairwise.energy_distance(x, y, backend=b),
                "sliced_wasserstein": pairwise.sliced_wasserstein(x, y, backend=b),
            }

        yield Pair(f"pairwise of {m}, d={d} float32", contrasts, 2e-5)
    for variables in sized((5, 12, 17), (4,)):
        f = normal(7, 2**variables)
        yield Pair(
            f"moebius of {variables} variables float32",
            lambda b, f=f: {"and": moebius.moebius(f, backend=b)},
            8 * (variables + 1) * 1.2e-7,
        )
    f = normal(*sized((64, 2**10), (2, 2**4)))
    yield Pair(
        f"sparsify of {len(f)} tables of {f.shape[1]} float32, 100 iterations",
        lambda b: {"q": moebius.sparsify(f, bound=0.05, tolerance=0.0, iterations=sized(100, 20), backend=b).q},
        2e-4,
    )
    walk = normal(*sized((16, 40, 4_099), (3, 5, 40))).cumsum(1)
    yield Pair("paths float32", lambda b: {"squared": paths.squared_distances(walk, backend=b)}, 8e-6)
    x = torch.from_numpy(normal(*sized((257, 4_099), (5, 70))))
    slots = draw.integers(0, 128, x.shape[1])

    def summary(b: str) -> Results:
        from featdyn_kernels._dispatch import to_device

        given = to_device(x) if b == "gpu" else x
        out = torch.empty(given.shape, dtype=torch.float16, device=given.device)
        largest = summaries.rounded(given, out, backend=b)
        return {"stored": out, "largest": largest, **vars(summaries.summarise(out, out, slots, 64, backend=b))}

    yield Pair("summaries float32 to float16", summary, 1e-6)


def compare(pair: Pair) -> dict[str, Any]:
    """Compute on both; the row says which of the results differ, and the largest difference of any."""
    try:
        there, here = (
            {n: host(v) for n, v in pair.call(b).items() if v is not None and not isinstance(v, int | str)}
            for b in ("gpu", "cpu")
        )
    except Exception as error:
        return {"what": pair.name, "ok": False, "note": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    found = {name: difference(there[name], here[name], pair) for name in here}
    worst = [f"{n} {r.get('note') or format(r['largest'], '.2g')}" for n, r in found.items() if not r["ok"]]
    largest = max((r.get("largest", np.inf) for r in found.values()), default=0.0)
    note = f"beyond {pair.tolerance:.1g}: " + ", ".join(worst) if worst else f"{largest:.1g} of {pair.tolerance:.1g}"
    return {"what": pair.name, "ok": not worst, "note": note, "results": found}


def rows(device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a row for each setting."""
    yield from map(compare, pairs())
