import pickle
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from featdyn.data import load, names, probe_set
from featdyn.errors import DataError


def test_digits():
    digits = load("digits")
    assert digits.shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    np.testing.assert_array_equal(np.bincount(digits.test.labels), [36] * 10)
    assert digits.train.pixels.max() == 255
    # The split is part of every sample's id, so it may never change.
    assert zlib.crc32(digits.train.pixels.tobytes()) == 2620496983
    assert zlib.crc32(digits.test.pixels.tobytes()) == 3317313954


def test_digits_splits_are_all_of_scikit_learns_digits():
    from sklearn.datasets import load_digits

    digits = load("digits")
    ours = np.concatenate([digits.train.pixels, digits.test.pixels])[:, 0]
    theirs = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(i.tobytes() for i in ours) == sorted(i.tobytes() for i in theirs)


def test_image_size_resizes_any_data_set():
    digits = load("digits", image_size=12)
    assert digits.shape == (1, 12, 12)
    assert digits.test.pixels.shape == (360, 1, 12, 12)
    assert digits.mean[0] == pytest.approx(load("digits").mean[0], abs=0.02)


def test_unknown_name_lists_the_known():
    with pytest.raises(DataError, match=r"'cifar': did you mean cifar10\? there are digits, mnist, .*imagefolder:PATH"):
        load("cifar")
    assert names() == ("digits", "mnist", "cifar10", "cifar100", "svhn", "stl10", "mod97", "docstrings")


def test_light_imports():
    """The recipe reads the options, and neither it nor `import featdyn.data` may wait for torch."""
    code = (
        "import sys, featdyn.data, featdyn.data.options\n"
        "print([m for m in ('torch', 'torchvision', 'sklearn', 'scipy', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- torchvision: its own readers on small files in its own formats ---


@pytest.fixture
def datasets():
    return pytest.importorskip("torchvision.datasets", reason="torchvision does not import", exc_type=Exception)


def write_idx(path, array):
    path.write_bytes(
        struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


@pytest.mark.usefixtures("datasets")
def test_mnist(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    wanted = {}
    for split, stem, count in (("train", "train", 21), ("test", "t10k", 11)):
        wanted[split] = rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)
        write_idx(raw / f"{stem}-images-idx3-ubyte", wanted[split][0])
        write_idx(raw / f"{stem}-labels-idx1-ubyte", wanted[split][1])
    mnist = load("mnist", data_dir=tmp_path)
    assert mnist.shape == (1, 28, 28)
    assert mnist.classes == tuple("0123456789")
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(mnist, split).pixels[:, 0], wanted[split][0])
        np.testing.assert_array_equal(getattr(mnist, split).labels, wanted[split][1])
        assert getattr(mnist, split).labels.dtype == np.int64
        assert (getattr(mnist, split).name, getattr(mnist, split).split) == ("mnist", split)

    (raw / "t10k-images-idx3-ubyte").write_bytes(b"\0" * 100)
    with pytest.raises(DataError, match="mnist cannot be read from"):
        load("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "reader", "folder", "key"),
    [
        ("cifar10", "CIFAR10", "cifar-10-batches-py", "label"),
        ("cifar100", "CIFAR100", "cifar-100-python", "fine_label"),
    ],
)
def test_cifar(tmp_path, monkeypatch, datasets, name, reader, folder, key):
    cls = getattr(datasets, reader)
    monkeypatch.setattr(cls, "train_list", [["train", None]])  # no checksum: these are not the real files
    monkeypatch.setattr(cls, "test_list", [["test", None]])
    monkeypatch.setattr(cls, "meta", {"filename": "meta", "key": f"{key}_names", "md5": None})
    (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 256, (7, 3, 32, 32), np.uint8)
    classes = ["airplane", "apple", "car"]
    for file, content in (
        ("train", {"data": wanted.reshape(7, -1), f"{key}s": [0, 1, 2, 0, 1, 2, 2]}),
        ("test", {"data": wanted[:2].reshape(2, -1), f"{key}s": [2, 1]}),
        ("meta", {f"{key}_names": classes}),
    ):
        (tmp_path / folder / file).write_bytes(pickle.dumps(content))
    dataset = load(name, data_dir=str(tmp_path))
    assert dataset.classes == tuple(classes)
    np.testing.assert_array_equal(dataset.train.pixels, wanted)
    np.testing.assert_array_equal(dataset.test.pixels, wanted[:2])
    np.testing.assert_array_equal(dataset.test.labels, [2, 1])


def test_svhn(tmp_path, monkeypatch, datasets):
    import scipy.io

    splits = {split: ["", f"{split}_32x32.mat", None] for split in ("train", "test", "extra")}
    monkeypatch.setattr(datasets.SVHN, "split_list", splits)
    wanted = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 5), np.uint8)
    for split in ("train", "test"):
        scipy.io.savemat(tmp_path / f"{split}_32x32.mat", {"X": wanted, "y": np.array([[1], [10], [3], [9], [10]])})
    svhn = load("svhn", data_dir=tmp_path)
    np.testing.assert_array_equal(svhn.train.pixels, wanted.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(svhn.test.labels, [1, 0, 3, 9, 0])  # the files write 10 for the digit 0
    assert svhn.classes == tuple("0123456789")


def test_stl10(tmp_path, monkeypatch, datasets):
    monkeypatch.setattr(
        datasets.STL10, "train_list", [[f"{f}.bin", None] for f in ("train_X", "train_y", "unlabeled_X")]
    )
    monkeypatch.setattr(datasets.STL10, "test_list", [[f"{f}.bin", None] for f in ("test_X", "test_y")])
    binary = tmp_path / "stl10_binary"
    binary.mkdir()
    (binary / "unlabeled_X.bin").touch()
    wanted = np.random.default_rng(0).integers(0, 256, (3, 3, 96, 96), np.uint8)
    for split in ("train", "test"):  # the files hold columns first, and labels from 1
        (binary / f"{split}_X.bin").write_bytes(wanted.transpose(0, 1, 3, 2).tobytes())
        (binary / f"{split}_y.bin").write_bytes(bytes([1, 10, 3]))
    stl10 = load("stl10", data_dir=tmp_path)
    np.testing.assert_array_equal(stl10.train.pixels, wanted)
    np.testing.assert_array_equal(stl10.test.labels, [0, 9, 2])
    assert stl10.classes[2] == "car"
    assert load("stl10", data_dir=tmp_path, image_size=32).shape == (3, 32, 32)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "svhn", "stl10"])
@pytest.mark.usefixtures("datasets")
def test_missing_data_says_what_to_do(tmp_path, name):
    with pytest.raises(DataError, match=f"^{name} .*set data_dir"):
        load(name)
    with pytest.raises(DataError, match=f"^{name} cannot be read from .*set download") as error:
        load(name, data_dir=tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="set download"):
        probe_set(load("digits"), shifted=name, data_dir=tmp_path)


def test_a_download_that_fails(tmp_path, monkeypatch, datasets):
    def offline(**_):
        raise OSError("no route\nto host")

    monkeypatch.setattr(datasets, "CIFAR10", offline)
    with pytest.raises(DataError, match=r"OSError: no route to host\): check the connection"):
        load("cifar10", data_dir=tmp_path, download=True)


def test_torchvision_that_does_not_import(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.datasets", raising=False)
    with pytest.raises(DataError, match=r"torchvision, which does not import.*featdyn\[vision\]"):
        load("mnist", data_dir=tmp_path)
    assert load("digits").shape == (1, 8, 8)


# --- imagefolder ---


def write_folder(
    root, splits=("train", "test"), classes=("cat", "dog"), count=3, size=(6, 5), mode="RGB", suffix="png"
):
    """Write random images as root/<split>/<class>/<i>.<suffix> and return {(split, class, i): array}."""
    rng = np.random.default_rng(0)
    written = {}
    for split in splits:
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                shape = size if mode == "L" else (*size, 3)
                written[split, name, i] = rng.integers(0, 256, shape, np.uint8)
                Image.fromarray(written[split, name, i]).save(root / split / name / f"{i:03d}.{suffix}")
    return written


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_imagefolder(tmp_path, mode):
    root = tmp_path / "pets"
    written = write_folder(root, count=140, mode=mode)  # more than one block of files
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"")
    (root / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "README").write_text("no class")
    pets = load(f"imagefolder:{root}")
    assert pets.name == pets.train.name == "imagefolder:pets"
    assert pets.classes == ("cat", "dog")
    assert pets.shape == (3 if mode == "RGB" else 1, 6, 5)
    for split in ("train", "test"):
        images = getattr(pets, split)
        np.testing.assert_array_equal(images.labels, [0] * 140 + [1] * 140)
        for i, name in ((0, "cat"), (139, "cat"), (140, "dog"), (279, "dog")):
            wanted = written[split, name, i % 140]
            np.testing.assert_array_equal(
                images.pixels[i], wanted.transpose(2, 0, 1) if mode == "RGB" else wanted[None]
            )


def test_imagefolder_with_one_colour_image_has_three_channels(tmp_path):
    written = write_folder(tmp_path, count=2, mode="L")
    colour = np.arange(90, dtype=np.uint8).reshape(6, 5, 3)
    Image.fromarray(colour).save(tmp_path / "test" / "dog" / "001.png")
    folder = load(f"imagefolder:{tmp_path}")
    assert folder.shape == (3, 6, 5)
    np.testing.assert_array_equal(folder.test.pixels[3], colour.transpose(2, 0, 1))
    for pixels in (folder.train.pixels[0], folder.test.pixels[2]):
        assert (pixels == pixels[0]).all()
    np.testing.assert_array_equal(folder.train.pixels[0, 0], written["train", "cat", 0])


def test_imagefolder_reads_palettes_alpha_and_bits(tmp_path):
    write_folder(tmp_path, count=1)
    red = Image.new("RGB", (5, 6), (255, 0, 0))
    red.convert("P").save(tmp_path / "train" / "cat" / "p.png")
    red.convert("RGBA").save(tmp_path / "train" / "cat" / "q.png")
    Image.new("1", (5, 6), 1).save(tmp_path / "train" / "cat" / "r.png")
    pixels = load(f"imagefolder:{tmp_path}").train.pixels
    for i in (1, 2):
        np.testing.assert_array_equal(pixels[i, :, 0, 0], [255, 0, 0])
    assert (pixels[3] == 255).all()


def test_imagefolder_image_size_crops_the_centre(tmp_path):
    write_folder(tmp_path, count=1, size=(8, 8))
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 6:18] = 200  # the filter reaches a little beyond the crop
    Image.fromarray(wide).save(tmp_path / "train" / "cat" / "wide.png")
    with pytest.raises(DataError, match=r"000\.png is 8x8, .*wide\.png is 8x24: set image_size"):
        load(f"imagefolder:{tmp_path}")
    folder = load(f"imagefolder:{tmp_path}", image_size=4)
    assert folder.shape == (3, 4, 4)
    assert (folder.train.pixels[1] == 200).all()


def test_imagefolder_refuses_what_it_cannot_read(tmp_path):
    def refused(message):
        with pytest.raises(DataError, match=message) as error:
            load(f"imagefolder:{tmp_path}")
        assert "\n" not in str(error.value)

    refused(r"train is not a folder: imagefolder:PATH needs PATH/train/<class>/")
    write_folder(tmp_path, splits=("train",))
    refused(r"test is not a folder")
    (tmp_path / "test").mkdir()
    refused(r"test has no class folders")
    write_folder(tmp_path, splits=("test",), classes=("cat", "horse"))
    refused(r"same class folders, but only one of them has dog, horse")
    (tmp_path / "test" / "horse").rename(tmp_path / "test" / "dog")
    load(f"imagefolder:{tmp_path}")
    broken = tmp_path / "train" / "dog" / "broken.jpg"
    broken.write_bytes(b"not an image")
    refused(r"broken\.jpg cannot be read as an image")
    whole = (tmp_path / "train" / "dog" / "000.png").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    refused(r"broken\.jpg cannot be read as an image")
    broken.unlink()
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(tmp_path / "train" / "dog" / "deep.png")
    refused(r"deep\.png has more than 8 bits")
    for file in (tmp_path / "train" / "dog").iterdir():
        file.unlink()
    refused(r"train has no images of dog")


def test_another_seed_keeps_other_images_as_balanced():
    first, again, other = (load("digits", train_size=200, seed=s).train for s in (0, 0, 1))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.pixels, load("digits", train_size=200).train.pixels)
    assert np.bincount(other.labels).tolist() == [20] * 10
    assert (first.pixels != other.pixels).any()


def test_train_size_keeps_the_same_images_balanced_and_named_as_in_the_whole():
    whole, half, small = load("digits"), load("digits", train_size=700), load("digits", train_size=30)
    assert np.bincount(small.train.labels).tolist() == [3] * 10
    assert set(small.train.numbers) < set(half.train.numbers)
    np.testing.assert_array_equal(half.train.pixels, whole.train.pixels[half.train.numbers])
    np.testing.assert_array_equal(half.test.pixels, whole.test.pixels)
    probes = probe_set(small, train=10, test=0)
    numbers = probes.coords["dataset_index"]
    np.testing.assert_array_equal(probes.pixels, whole.train.pixels[numbers])
    assert probes.coords["sample"][0] == f"digits/train/{numbers[0]:05d}"
    with pytest.raises(DataError, match=r"train_size: 5000 is more than the 1437 training images of digits"):
        load("digits", train_size=5000)
