"""MNIST and CIFAR-10 as they are, where they lie packed beside the checkout or in $FEATDYN_TEST_DATA."""

import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest

from featdyn.data import CORRUPTIONS, load, normalise, probe_set

DATA = Path(os.environ.get("FEATDYN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def unpack(name, folder, wanted=lambda member: True):
    if not (DATA / name).is_file():
        pytest.skip(f"{name} is not in {DATA}")
    with tarfile.open(DATA / name, "r|xz") as packed:  # a stream: going back would unpack it all again
        for member in packed:
            if wanted(member):
                packed.extract(member, folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def mnist_dir(tmp_path_factory):
    pytest.importorskip("torchvision", reason="torchvision does not import", exc_type=Exception)
    return unpack("mnist.tar.xz", tmp_path_factory.mktemp("mnist"))


def test_mnist(mnist_dir):
    mnist = load("mnist", data_dir=mnist_dir)
    assert mnist.shape == (1, 28, 28)
    assert np.bincount(mnist.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert len(mnist.test) == 10_000
    assert mnist.mean[0] == pytest.approx(0.1307, abs=5e-5)  # the figures that everyone uses
    assert mnist.std[0] == pytest.approx(0.3081, abs=5e-5)
    probes = probe_set(mnist, train=500, test=500, corrupted=20, corruptions=tuple(CORRUPTIONS), severities=(1, 5))
    coords = probes.coords
    assert np.bincount(coords["label"][coords["split"] == "test"]).tolist() == [50] * 10
    assert (coords["split"] == "corrupted").sum() == 20 * 7 * 2
    assert normalise(probes.pixels, mnist.mean, mnist.std).shape == (1280, 1, 28, 28)


def test_digits_shifted_to_mnist(mnist_dir):
    probes = probe_set(load("digits"), train=0, test=0, shifted="mnist", shifted_count=50, data_dir=mnist_dir)
    mnist = load("mnist", data_dir=mnist_dir)
    coords = probes.coords
    assert probes.pixels.shape == (50, 1, 8, 8)
    np.testing.assert_array_equal(coords["label"], mnist.test.labels[coords["dataset_index"]])
    brightness = mnist.test.pixels[coords["dataset_index"]].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(probes.pixels.mean(axis=(1, 2, 3)), brightness, atol=4)


def test_some_of_cifar10(tmp_path):
    root = unpack("cifar10-imagefolder.tar.xz", tmp_path, lambda m: m.isfile() and int(Path(m.name).stem) < 20)
    cifar = load(f"imagefolder:{root / 'cifar10'}")
    assert cifar.name == "imagefolder:cifar10"
    assert cifar.shape == (3, 32, 32)
    assert cifar.classes == (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    assert len(cifar.train) == len(cifar.test) == 200
    probes = probe_set(
        cifar, train=40, test=40, corrupted=40, corruptions=tuple(CORRUPTIONS), severities=(1, 2, 3, 4, 5)
    )
    clean = probes.pixels[probes.coords["split"] == "test"].astype(int)
    for corruption in CORRUPTIONS:
        change = [
            np.abs(
                probes.pixels[(probes.coords["corruption"] == corruption) & (probes.coords["severity"] == s)] - clean
            )
            for s in (1, 2, 3, 4, 5)
        ]
        means = [c.mean() for c in change]
        assert means == sorted(means)
        assert means[0] > 0.3
    # Aeroplanes and ships have more blue in them than deer.
    blue = [
        normalise(cifar.train.pixels[cifar.train.labels == c], cifar.mean, cifar.std)[:, 2].mean() for c in (0, 8, 4)
    ]
    assert min(blue[:2]) > blue[2]


@pytest.mark.slow
def test_all_of_cifar10():
    with tempfile.TemporaryDirectory() as folder:  # pytest's tmp_path would keep 60,000 files
        unpack("cifar10-imagefolder.tar.xz", folder)
        cifar = load(f"imagefolder:{folder}/cifar10")
    assert np.bincount(cifar.train.labels).tolist() == [5000] * 10
    assert np.bincount(cifar.test.labels).tolist() == [1000] * 10
    # The original's figures; these JPEG files are near it, not equal to it.
    np.testing.assert_allclose(cifar.mean, (0.4914, 0.4822, 0.4465), atol=5e-4)
    np.testing.assert_allclose(cifar.std, (0.2470, 0.2435, 0.2616), atol=3e-3)
