"""Do three phases of generalization show? ``python -m bench.three_phases FOLDER --data-dir DIR [--json FILE]``.

MNIST, 2,000 training images with 1 % label noise, three seeds. Two networks, a multilayer perceptron and a plain
convolutional one, each the other's reference of another architecture; for each a baseline trained on the test images.
Interactions are those of 10 patches of the input (mean as the masked state) on 30 training and 30 test images. All
this is far smaller than the study (arXiv 2505.06993), whose own numbers, settings and criteria were not at hand.

Rules, written before any of these runs
---------------------------------------
For each network, seed and kind of label (``test``: baseline trained on the test images; ``architecture``: the other
network on the same training set; ``decay``: decay plus spindle, which labels no single interaction), on the test
probes:

1. *First phase*: the random network's interactions go, simple generalizable ones come. Holds where the generalizable
   share H has a maximum between the first and the last checkpoint (verdict "yes" of ``phases.peak``) and the mean
   order of salient interactions falls from the first checkpoint to that maximum (95 % interval below 0). Does not
   hold where that verdict is "no" or the interval of the order lies above 0.
2. *Second phase*: interactions of rising order that generalize less. Holds where the same verdict is "yes" and the
   mean order rises from the maximum to the end (interval above 0). Does not hold where it is "no" or the interval
   lies below 0.
3. *Third phase*: the gap of test over train loss rises, and non-generalizable interactions make it. Holds where
   ``phases.lasting_rise`` of the gap after the maximum of H is "yes" and, at the last checkpoint, taking them out
   narrows the gap (interval of what they explain above 0). Does not hold where the verdict is "no" or that interval
   lies below 0. Of ``decay`` only the lasting rise is asked for.

What neither holds nor does not is undecided. Over seeds a claim *holds* where it does in all three, *does not hold*
where it does not in at least two, else it is *undecided*. How far kinds agree: Cohen's kappa of labels of single
interactions at the last checkpoint, mean of the seeds; of ``decay`` the correlation over orders of its share with H.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from featdyn.store import Run
from featdyn.training import load
from featdyn.training.stage import train

SEEDS = (0, 1, 2)
NETWORKS = {"mlp": "[128, 64]", "cnn": "[8, 16, 32]"}
COMMON = (
    "data.train_size=2000",
    "training.batch_size=64",
    "training.learning_rate=0.05",
    "training.weight_decay=0",
    "training.schedule=constant",
    "training.precision=float32",
    "training.channels_last=false",
    "checkpoints.first_epoch=5",
    "probes.train=30",
    "probes.test=30",
    "probes.corrupted=0",
    "capture.layers=['fc']",
    "capture.gradients=false",
)
OF_SPLIT = {
    "train": ("labels.noise=0.01", "training.epochs=40", "checkpoints.every=4"),
    "test": ("training.epochs=8", "checkpoints.every=8"),  # all 10,000 test images
}


def trained(folder: Path, data_dir: Path, network: str, split: str, seed: int) -> Run:
    """Return a run, trained if it is not there yet, or not to its end."""
    own = (f"data.data_dir={data_dir}", f"network.name={network}", f"network.options.widths={NETWORKS[network]}")
    seeds = f"training.seed={seed}", f"labels.seed={seed}", f"training.split={split}"
    return train(load("mnist", [*COMMON, *OF_SPLIT[split], *own, *seeds]), folder / f"{network}-{split}-{seed}.zarr")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.three_phases", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the runs lie, or will")
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds MNIST")
    options = parser.parse_args()
    for seed in SEEDS:
        for network in NETWORKS:
            for split in OF_SPLIT:
                print(trained(options.folder, options.data_dir, network, split, seed).path, flush=True)


if __name__ == "__main__":
    main()
