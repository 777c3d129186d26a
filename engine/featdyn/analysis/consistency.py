"""Do predictions hold when the shallow half of one checkpoint meets the deep half of another?

Definitions of accuracy and agreement of composites are our own choice of what to measure; the composites themselves are
those of arXiv 2509.20334.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import nn

from featdyn.analysis import composites, source
from featdyn.analysis.composites import Composites
from featdyn.analysis.network import network, prepare, states
from featdyn.analysis.options import ConsistencyOptions
from featdyn.capture.tap import device_of
from featdyn.networks import Cut, cuts, resolve
from featdyn.store import Run
from featdyn.validation import validate

BATCHNORM = "buffers travel with their layers: a suffix keeps the BatchNorm statistics of its own checkpoint"


def consistency(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Evaluate the composites of all pairs of checkpoints on all probes.

    Parameters
    ----------
    run
        A recorded run.
    model
        The network, where it is not one of featdyn's.
    progress
        Called with (done, total).
    **options
        Fields of :class:`featdyn.analysis.options.ConsistencyOptions`.

    Returns
    -------
    xarray.Dataset
        With t1 the checkpoint of the prefix (shallow half) and t2 of the suffix (deep half):
        ``prediction (cut, t1, t2, probe)`` predicted class;
        ``accuracy``, ``agreement`` (with t2's own network), ``agreement_prefix`` (with t1's own network) and mean
        ``loss``, each ``(cut, set, t1, t2)``; ``plain_accuracy (set, t1)`` of the recorded networks;
        ``diagonal_differences (cut)``: predictions on the diagonal that differ from the recorded network's, 0 where
        features kept every bit.

    Raises
    ------
    NetworkError
        The network cannot be cut, or there is no such cut.
    """
    chosen = validate(ConsistencyOptions, options, "consistency")
    model = network(run) if model is None else prepare(model, channels_last=False)
    example = next(composites.batches(run, device_of(model))).inputs[:1]
    picked = resolve(cuts(model, example), chosen.cuts)
    stored = source.stored_layers(run, picked, exact=chosen.features == "auto")
    sources = _sources(run, model, picked, stored, chosen)
    found = composites.evaluate(run, model, picked, states(run, model), sources, progress)
    return summarise(
        run, picked, found, {"source": [sources[cut.name] for cut in picked], "path": found.paths}
    ).assign_attrs(options=chosen.model_dump(mode="json"), batchnorm=BATCHNORM)


def _sources(
    run: Run, model: nn.Module, picked: Sequence[Cut], stored: set[str], options: ConsistencyOptions
) -> dict[str, source.Source]:
    if options.features != "auto":
        return source.forced(picked, stored, options.features)
    widths = {
        cut.name: run.schema[f"layers/{cut.module}/activation"].sample_bytes for cut in picked if cut.name in stored
    }
    return source.choose(picked, stored, widths, composites.measure_rates(run, model, picked, stored))


def summarise(run: Run, picked: Sequence[Cut], found: Composites, per_cut: dict[str, list[str]]) -> xr.Dataset:
    """Return per-set accuracy and agreement from per-probe predictions."""
    coords = run.coords
    labels = coords["label"].values
    splits = coords["split"].values if "split" in coords else np.full(len(labels), "probes", dtype=object)
    sets = list(dict.fromkeys(splits.tolist()))
    members = [splits == name for name in sets]
    prediction = found.prediction
    diagonal = np.einsum("cttn->ctn", prediction)
    plain = run.array("outputs/logits").values.argmax(-1)
    right = prediction == labels
    values: dict[str, Any] = {
        "prediction": (("cut", "t1", "t2", "probe"), prediction.astype(np.min_scalar_type(int(prediction.max())))),
        "accuracy": _per_set(right, members),
        "agreement": _per_set(prediction == diagonal[:, None], members),
        "agreement_prefix": _per_set(prediction == diagonal[:, :, None], members),
        "loss": _per_set(found.loss, members),
        "plain_accuracy": (("set", "t1"), np.stack([(plain == labels)[:, m].mean(-1) for m in members])),
        "diagonal_differences": ("cut", (diagonal != plain).sum((1, 2))),
    }
    steps, checkpoints = coords["step"].values, np.arange(prediction.shape[1])
    return xr.Dataset(
        values,
        coords={
            "cut": np.array([cut.name for cut in picked], dtype=object),
            "set": np.array(sets, dtype=object),
            "t1": checkpoints,
            "t2": checkpoints,
            "step1": ("t1", steps),
            "step2": ("t2", steps),
            "probe": coords["sample"].values,
            "set_size": ("set", [int(m.sum()) for m in members]),
            "prefix_macs": ("cut", [cut.prefix_macs for cut in picked]),
            "suffix_macs": ("cut", [cut.suffix_macs for cut in picked]),
            **{name: ("cut", np.array(column, dtype=object)) for name, column in per_cut.items()},
        },
    )


def _per_set(values: NDArray[Any], members: Sequence[NDArray[np.bool_]]) -> tuple[tuple[str, ...], NDArray[Any]]:
    means = [values[..., m].mean(-1, dtype=np.float64) for m in members]
    return ("cut", "set", "t1", "t2"), np.stack(means, axis=1)
