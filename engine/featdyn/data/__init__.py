"""Data sets, label noise, corruptions, and the probe set: fixed samples with stable ids."""

from featdyn.data.cifar10c import Cifar10C
from featdyn.data.corruptions import CORRUPTIONS, corrupt
from featdyn.data.images import Dataset, Images, normalise
from featdyn.data.labels import NoisyLabels, noisy_labels
from featdyn.data.load import load, names
from featdyn.data.options import DataOptions, LabelOptions, ProbeOptions
from featdyn.data.probes import ProbeSet, probe_set

__all__ = [
    "CORRUPTIONS",
    "Cifar10C",
    "DataOptions",
    "Dataset",
    "Images",
    "LabelOptions",
    "NoisyLabels",
    "ProbeOptions",
    "ProbeSet",
    "corrupt",
    "load",
    "names",
    "noisy_labels",
    "normalise",
    "probe_set",
]
