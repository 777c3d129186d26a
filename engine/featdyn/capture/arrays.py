"""The arrays of a recording: what each checkpoint adds to the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from featdyn.capture import cube
from featdyn.capture.layers import dims
from featdyn.capture.layout import Layout
from featdyn.capture.options import CaptureOptions
from featdyn.capture.outputs import Outputs
from featdyn.store import ArraySpec
from featdyn.store.schema import check_name


def gradient_scale(options: CaptureOptions) -> float:
    """Return by how much stored gradients are larger than they are.

    Gradients of samples that are fitted well are tiny: in float16 they would vanish. Stored 4096 times larger (xarray
    undoes it through the attribute ``scale_factor``), the smallest is 1.5e-11 and the largest 16.
    """
    return 4096.0 if options.dtype == "float16" else 1.0


def arrays(
    layers: Mapping[str, Layout], outputs: Outputs, samples: int, options: CaptureOptions, coords: Sequence[str]
) -> list[ArraySpec]:
    """Return the arrays of a recording; ``coords`` are the numbers given with each checkpoint besides ``step``."""
    found = [ArraySpec(name, (), (), "int64") for name in ("checkpoint", "step")]
    found += [ArraySpec(name, (), (), "float64") for name in coords]
    if options.record == "features":
        found += of_layers(layers, samples, options)
    found += outputs.arrays(samples)
    return [*found, *cube_arrays(len(layers), samples, options)]


def of_layers(layers: Mapping[str, Layout], samples: int, options: CaptureOptions) -> list[ArraySpec]:
    """Return the arrays of activations and gradients, as they come from a pass."""
    found = []
    note = {"long_name": "gradient of the sample's loss, eval mode"}
    scale = {} if gradient_scale(options) == 1 else {"scale_factor": 1 / gradient_scale(options)}
    for name, layer in layers.items():
        check_name(name, "layer")
        axes, lengths = ("sample", *dims(layer.shape, positions=layer.known)), (samples, *layer.shape)
        found.append(ArraySpec(f"layers/{name}/activation", axes, lengths, options.dtype, layer.attrs))
        if options.gradients:
            said = {**note, **scale, **layer.attrs}
            if layer.axis.pool == "mean":
                said["long_name"] = "gradient of the sample's loss by a step that all positions take, eval mode"
            found.append(ArraySpec(f"layers/{name}/gradient", axes, lengths, options.dtype, said))
    return found


def cube_arrays(layers: int, samples: int, options: CaptureOptions) -> list[ArraySpec]:
    """Return the arrays of summaries."""
    names = cube.ACTIVATION + (cube.GRADIENT if options.gradients else ())
    lengths = (layers, samples)
    found = [_cube(name, ("layer", "sample"), lengths) for name in names]
    return [*found, _cube("sketch", ("layer", "sample", "component"), (*lengths, options.sketch))]


def _cube(name: str, axes: tuple[str, ...], lengths: tuple[int, ...]) -> ArraySpec:
    return ArraySpec(f"cube/{name}", axes, lengths, "float32", {"long_name": cube.MEANING[name]})
