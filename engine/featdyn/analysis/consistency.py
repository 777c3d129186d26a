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
from featdyn.analysis.composites import SOFT, Composites
from featdyn.analysis.features import batches, measure_rates
from featdyn.analysis.measures import measures
from featdyn.analysis.network import network, prepare, states
from featdyn.analysis.options import ConsistencyOptions
from featdyn.analysis.sets import Sets
from featdyn.capture.tap import device_of
from featdyn.networks import Cut, cuts, resolve
from featdyn.store import Run
from featdyn.validation import validate

BATCHNORM = "buffers travel with their layers: a suffix keeps the BatchNorm statistics of its own checkpoint"
PAIRS = ("cut", "set", "t1", "t2")


def consistency(
    run: Run,
    *,
    model: nn.Module | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Evaluate the composites of all pairs of checkpoints on all probes.

    What an earlier result of the same options holds is kept: after another checkpoint only a row and a column are new.

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
        ``accuracy``, ``agreement`` (with t2's own network), ``agreement_prefix`` (with t1's own network), the means
        ``loss``, ``margin`` (logits), ``probability`` (of the label) and ``divergence`` (KL in nats, from t2's own
        network), each ``(cut, set, t1, t2)``; ``plain_accuracy (set, t1)`` of the recorded networks;
        ``diagonal_differences (cut)``: predictions on the diagonal that differ from the recorded network's, 0 where
        features kept every bit; and memory, forgetting, horizons, transferability and gap curves as in
        :mod:`featdyn.analysis.measures`.

    Raises
    ------
    NetworkError
        The network cannot be cut, or there is no such cut.
    """
    chosen = validate(ConsistencyOptions, options, "consistency")
    model = network(run) if model is None else prepare(model, channels_last=False)
    picked = resolve(cuts(model, next(batches(run, device_of(model))).inputs[:1]), chosen.cuts)
    stored = source.stored_layers(run, picked, exact=chosen.features == "auto")
    sources = _sources(run, model, picked, stored, chosen)
    sets = Sets.of(run)
    known = _known(run, picked, chosen)
    found = composites.evaluate(
        run, model, picked, states(run, model), sources, sets.weights, known=known, progress=progress
    )
    per_cut: dict[str, list[str]] = {"source": [sources[cut.name] for cut in picked], "path": found.paths}
    result = summarise(run, picked, found, sets, chosen, per_cut)
    return result.assign_attrs(options=chosen.model_dump(mode="json"), batchnorm=BATCHNORM)


def _sources(
    run: Run, model: nn.Module, picked: Sequence[Cut], stored: set[str], options: ConsistencyOptions
) -> dict[str, source.Source]:
    if options.features != "auto":
        return source.forced(picked, stored, options.features)
    widths = {
        cut.name: run.schema[f"layers/{cut.module}/activation"].sample_bytes for cut in picked if cut.name in stored
    }
    return source.choose(picked, stored, widths, measure_rates(run, model, picked, stored))


def _known(run: Run, picked: Sequence[Cut], options: ConsistencyOptions) -> Composites | None:
    """Return what the newest result says of the first checkpoints, if it was made with the same options.

    Probes never change, and checkpoints are only ever added.
    """
    if not run.results("consistency"):
        return None
    last = run.result("consistency")
    given, summary = options.model_dump(mode="json"), {"window": 0, "draws": 0, "seed": 0}  # which leave pairs alone
    same = last.attrs.get("options", {}) | summary == given | summary
    names = [cut.name for cut in picked]
    if not same or not {*SOFT} <= {*last.data_vars} or last["cut"].values.tolist() != names:
        return None
    soft = np.stack([last[name].transpose(*PAIRS).values for name in SOFT])
    return Composites(last["prediction"].transpose("cut", "t1", "t2", "probe").values, soft, [])


def summarise(
    run: Run,
    picked: Sequence[Cut],
    found: Composites,
    sets: Sets,
    options: ConsistencyOptions,
    per_cut: dict[str, list[str]],
) -> xr.Dataset:
    """Return the result from per-probe predictions."""
    coords, prediction = run.coords, found.prediction
    diagonal = np.einsum("cttn->ctn", prediction)
    plain = run.array("outputs/logits").values.argmax(-1)
    labels = coords["label"].values
    values: dict[str, Any] = {
        "prediction": (("cut", "t1", "t2", "probe"), prediction),
        "agreement": (PAIRS, _shares(prediction == diagonal[:, None], sets)),
        "agreement_prefix": (PAIRS, _shares(prediction == diagonal[:, :, None], sets)),
        **{name: (PAIRS, array) for name, array in zip(SOFT, found.soft, strict=True)},
        "plain_accuracy": (("set", "t1"), np.stack([(plain == labels)[:, m].mean(-1) for m in sets.members])),
        "diagonal_differences": ("cut", (diagonal != plain).sum((1, 2))),
    }
    if "true_label" in coords and (coords["true_label"].values != labels).any():
        # A network trained on wrong labels may still see the right ones.
        values["accuracy_true"] = PAIRS, _shares(prediction == coords["true_label"].values, sets)
    steps, checkpoints = coords["step"].values, np.arange(prediction.shape[1])
    per_pair = measures(prediction == labels, labels, steps, sets, options)
    return xr.Dataset(
        values,
        coords={
            "cut": np.array([cut.name for cut in picked], dtype=object),
            "set": np.array(sets.names, dtype=object),
            "t1": checkpoints,
            "t2": checkpoints,
            "step1": ("t1", steps),
            "step2": ("t2", steps),
            "probe": coords["sample"].values,
            "set_size": ("set", sets.sizes),
            "prefix_macs": ("cut", [cut.prefix_macs for cut in picked]),
            "suffix_macs": ("cut", [cut.suffix_macs for cut in picked]),
            **{name: ("cut", np.array(column, dtype=object)) for name, column in per_cut.items()},
        },
    ).merge(per_pair)


def _shares(values: NDArray[np.bool_], sets: Sets) -> NDArray[np.float64]:
    return np.stack([values[..., m].mean(-1, dtype=np.float64) for m in sets.members], axis=1)
