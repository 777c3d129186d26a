import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featdyn.data import Dataset, Images, ProbeOptions, ProbeSet, corrupt, load, noisy_labels, probe_set
from featdyn.data.resize import fit_pixels
from featdyn.errors import DataError, FeatdynError

modest = settings(deadline=None, max_examples=40)


def toy(name="toy", classes=("cat", "dog", "frog"), train=60, test=45, shape=(3, 8, 8), seed=0):
    rng = np.random.default_rng(seed)

    def images(split, count):
        return Images(
            rng.integers(0, 256, (count, *shape), np.uint8), rng.integers(0, len(classes), count), name, split
        )

    return Dataset(name, images("train", train), images("test", test), classes)


TOY = toy()


def of(probes, split):
    """Return the probes of one split: {sample: all that is known of it}."""
    rows = np.flatnonzero(probes.coords["split"] == split)
    names = probes.coords["sample"][rows]
    return {
        str(name): (probes.pixels[row].tobytes(), *(str(probes.coords[c][row]) for c in sorted(probes.coords)))
        for name, row in zip(names, rows, strict=True)
    }


def prefix_of(few, many):
    return list(few.items()) == list(many.items())[: len(few)]


@modest
@given(
    *[st.tuples(st.integers(1, 60), st.integers(1, 45), st.integers(0, 45)) for _ in range(2)],
    st.integers(0, 2**63),
)
def test_counts_do_not_change_which_probes_come_first(one, two, seed):
    (a, b) = (
        probe_set(TOY, train=train, test=test, corrupted=min(test, corrupted), corruptions=("shot_noise",), seed=seed)
        for train, test, corrupted in (one, two)
    )
    for split in ("train", "test", "corrupted"):
        few, many = sorted((of(a, split), of(b, split)), key=len)
        assert prefix_of(few, many)


@modest
@given(st.integers(1, 60), st.integers(0, 2**63))
def test_probes_are_balanced_and_carry_the_data_sets_own_values(count, seed):
    probes = probe_set(TOY, train=count, test=0, seed=seed)
    coords, total = probes.coords, np.bincount(TOY.train.labels, minlength=3)
    taken = np.bincount(coords["true_label"], minlength=3)
    assert taken.max() - taken[taken < total].min(initial=taken.max()) <= 1
    np.testing.assert_array_equal(probes.pixels, TOY.train.pixels[coords["dataset_index"]])
    np.testing.assert_array_equal(coords["label"], TOY.train.labels[coords["dataset_index"]])
    np.testing.assert_array_equal(coords["label"], coords["true_label"])
    assert coords["sample"].tolist() == [f"toy/train/{i:05d}" for i in coords["dataset_index"]]


def test_coordinates_have_their_types():
    probes = probe_set(TOY, train=4, test=5, corrupted=2, corruptions=("contrast", "shot_noise"), severities=(1, 5))
    assert len(probes) == 4 + 5 + 2 * 2 * 2
    assert probes.pixels.dtype == np.uint8
    types = {name: values.dtype.kind + str(values.dtype.itemsize) for name, values in probes.coords.items()}
    assert (types["dataset_index"], types["label"], types["true_label"], types["severity"]) == ("i8", "i8", "i8", "i1")
    assert {types[name][0] for name in ("sample", "dataset", "origin", "split", "corruption")} == {"U"}
    assert list(dict.fromkeys(probes.coords["split"].tolist())) == ["train", "test", "corrupted"]


def test_corrupted_probes_pair_with_the_first_test_probes():
    names, levels = ("contrast", "shot_noise"), (1, 5)
    probes = probe_set(TOY, train=3, test=9, corrupted=4, corruptions=names, severities=levels, seed=7)
    coords = probes.coords
    clean = coords["dataset_index"][coords["split"] == "test"][:4]
    for name in names:
        for level in levels:
            rows = (coords["corruption"] == name) & (coords["severity"] == level)
            np.testing.assert_array_equal(coords["dataset_index"][rows], clean)
            wanted = corrupt(TOY.test.pixels[clean], name, level, indices=clean, seed=7)
            np.testing.assert_array_equal(probes.pixels[rows], wanted)
            np.testing.assert_array_equal(coords["label"][rows], TOY.test.labels[clean])
            assert coords["sample"][rows].tolist() == [f"toy/test/{i:05d}/{name}/{level}" for i in clean]
            assert set(coords["split"][rows]) == {"corrupted"}
            assert coords["origin"][rows].tolist() == [f"toy/test/{i:05d}" for i in clean]
    plain = coords["corruption"] == ""
    assert coords["origin"][plain].tolist() == coords["sample"][plain].tolist()
    assert len(set(coords["origin"])) == 3 + 9


def test_label_noise_changes_the_label_in_use_of_train_probes_alone():
    noisy = noisy_labels(TOY.train.labels, 1.0, 0, 3).labels
    clean, noised = (probe_set(TOY, train=30, test=30, train_labels=labels) for labels in (None, noisy))
    for name in clean.coords:
        if name != "label":
            np.testing.assert_array_equal(clean.coords[name], noised.coords[name])
    train = noised.coords["split"] == "train"
    np.testing.assert_array_equal(noised.coords["label"][train], noisy[noised.coords["dataset_index"][train]])
    np.testing.assert_array_equal(noised.coords["label"][~train], clean.coords["label"][~train])
    assert (noised.coords["label"] != noised.coords["true_label"]).any()
    with pytest.raises(ValueError, match="train_labels"):
        probe_set(TOY, train=3, test=3, train_labels=noisy[:-1])


def test_the_seed_chooses():
    one, again, other = (probe_set(TOY, train=20, test=20, seed=seed) for seed in (1, 1, 2))
    assert one.coords["sample"].tolist() == again.coords["sample"].tolist()
    assert set(one.coords["sample"]) != set(other.coords["sample"])


def test_defaults_fit_the_smallest_data_set():
    probes = probe_set(load("digits"))
    assert len(probes) == ProbeOptions().train + ProbeOptions().test


# --- shifted ---


def write_folder(root, dataset):
    for split in (dataset.train, dataset.test):
        for i, (image, label) in enumerate(zip(split.pixels, split.labels, strict=True)):
            folder = root / split.split / dataset.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:03d}.png")


def test_shifted_probes_share_classes_by_name(tmp_path):
    cifar = toy("cifar10", ("automobile", "frog", "Dog"))
    # Sorted as a folder is; two sizes, which a folder of photographs has.
    other = toy("stl", ("car", "dog", "monkey"), shape=(3, 24, 20), seed=1)
    write_folder(tmp_path / "stl", other)
    Image.new("RGB", (64, 31)).save(tmp_path / "stl" / "test" / "monkey" / "zzz.png")
    probes = probe_set(cifar, train=2, test=2, shifted=f"imagefolder:{tmp_path / 'stl'}", shifted_count=20, seed=3)
    shifted = probes.coords["split"] == "shifted"
    coords = {name: values[shifted] for name, values in probes.coords.items()}
    assert shifted.sum() == 20
    assert set(coords["dataset"]) == {"imagefolder:stl"}
    assert np.bincount(coords["label"], minlength=3).tolist() == [10, 0, 10]
    np.testing.assert_array_equal(coords["label"], coords["true_label"])
    reloaded = load(f"imagefolder:{tmp_path / 'stl'}", image_size=8).test
    np.testing.assert_array_equal(probes.pixels[shifted], reloaded.pixels[coords["dataset_index"]])
    theirs = reloaded.labels[coords["dataset_index"]]  # 0 car, 1 dog
    np.testing.assert_array_equal(np.where(theirs == 0, 0, 2), coords["label"])
    assert coords["sample"].tolist() == [f"imagefolder:stl/test/{i:05d}" for i in coords["dataset_index"]]

    with pytest.raises(DataError, match="46 test probes were asked for, but cifar10 has 45"):
        probe_set(cifar, train=2, test=46)
    with pytest.raises(DataError, match=r"99 shifted probes were asked for, but imagefolder:stl has .* shifted images"):
        probe_set(cifar, train=2, test=2, shifted=f"imagefolder:{tmp_path / 'stl'}", shifted_count=99)
    with pytest.raises(DataError, match=r"shares no class name with digits: car, dog, monkey against 0, 1"):
        probe_set(load("digits"), train=2, test=2, shifted=f"imagefolder:{tmp_path / 'stl'}")


def test_a_folder_is_cropped_once_where_images_are_no_squares(tmp_path):
    wide = toy("wide", shape=(3, 5, 9))
    write_folder(tmp_path / "other", toy("other", shape=(3, 12, 8), seed=1))
    probes = probe_set(wide, train=0, test=0, shifted=f"imagefolder:{tmp_path / 'other'}", shifted_count=4)
    whole = load(f"imagefolder:{tmp_path / 'other'}").test.pixels[probes.coords["dataset_index"]]
    np.testing.assert_array_equal(probes.pixels, fit_pixels(whole, (3, 5, 9)))


def test_stl10_for_cifar10(tmp_path, monkeypatch):
    """The nine shared classes, and a grey data set shifted to a colour one."""
    import featdyn.data.probes as module

    cifar = toy(
        "cifar10",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        train=200,
        test=200,
    )
    stl_classes = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
    stl = toy("stl10", stl_classes, test=400, shape=(3, 12, 12))
    monkeypatch.setattr(module, "load", lambda name, **_: {"stl10": stl}[name])
    coords = probe_set(cifar, train=0, test=0, shifted="stl10", shifted_count=90).coords
    assert np.bincount(coords["label"], minlength=10).tolist() == [10, 10, 10, 10, 10, 10, 0, 10, 10, 10]
    for index, label in zip(coords["dataset_index"], coords["label"], strict=True):
        assert stl_classes[stl.test.labels[index]].replace("car", "automobile") == cifar.classes[label]


def test_shifted_images_change_their_channels(monkeypatch):
    import featdyn.data.probes as module

    grey = toy("grey", shape=(1, 8, 8))
    monkeypatch.setattr(module, "load", lambda name, **_: {"toy": TOY, "grey": grey}[name])
    to_colour = probe_set(TOY, train=0, test=0, shifted="grey", shifted_count=5)
    np.testing.assert_array_equal(
        to_colour.pixels, grey.test.pixels[to_colour.coords["dataset_index"]].repeat(3, axis=1)
    )
    to_grey = probe_set(grey, train=0, test=0, shifted="toy", shifted_count=5)
    luma = np.tensordot(TOY.test.pixels[to_grey.coords["dataset_index"]], [0.299, 0.587, 0.114], (1, 0))
    assert np.abs(to_grey.pixels[:, 0] - luma).max() <= 1
    with pytest.raises(DataError, match="is the data set itself"):
        probe_set(TOY, shifted="toy", train=1, test=1)


# --- CIFAR-10-C ---


def test_published_arrays_are_used_where_they_fit(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 10_000)
    test = Images(np.zeros((10_000, 3, 32, 32), np.uint8), labels, "cifar10", "test")
    train = Images(test.pixels[:50], labels[:50], "cifar10", "train")
    cifar = Dataset("cifar10", train, test, tuple("abcdefghij"))
    fog = np.lib.format.open_memmap(tmp_path / "fog.npy", "w+", np.uint8, (50_000, 32, 32, 3))
    probes = probe_set(cifar, train=0, test=6)
    chosen = probes.coords["dataset_index"]
    fog[20_000 + chosen, 1, 2, 0] = np.arange(1, 7)
    fog.flush()
    np.save(tmp_path / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    options = {"train": 0, "test": 6, "corrupted": 6, "corruptions": ("fog",), "severities": (3,)}
    probes = probe_set(cifar, cifar10c=tmp_path, **options)
    np.testing.assert_array_equal(probes.pixels[6:, 0, 1, 2], np.arange(1, 7))
    assert probes.coords["sample"][6:].tolist() == [f"cifar10c/test/{i:05d}/fog/3" for i in chosen]
    assert probes.coords["origin"].tolist() == 2 * [f"cifar10/test/{i:05d}" for i in chosen]
    np.testing.assert_array_equal(probes.coords["label"][6:], labels[chosen])

    with pytest.raises(DataError, match="unknown corruption 'fog'"):
        probe_set(cifar, **options)
    other = Dataset("pets", train, Images(test.pixels, labels[::-1].copy(), "pets", "test"), cifar.classes)
    with pytest.raises(DataError, match="not those of pets's test images in their order: use it with cifar10"):
        probe_set(other, cifar10c=tmp_path, **options)


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 61}, "61 train probes were asked for, but toy has 60 train images"),
        ({"test": 10, "corrupted": 11}, "corrupted = 11 .* of which there are 10"),
        ({"train": 0, "test": 0}, "no probes were asked for"),
        ({"train": -1}, "probes: train: .*greater than or equal to 0"),
        ({"severities": (6,)}, "probes: severities.0: "),
        ({"trian": 5}, r"probes: no field trian; did you mean train\? there are train, "),
        ({"test": 5, "corrupted": 5, "corruptions": ("fogg",)}, "unknown corruption 'fogg'"),
        ({"shifted": "stl11"}, "unknown data set 'stl11'"),
        ({"test": 5, "corrupted": 5, "cifar10c": "nowhere"}, r"labels\.npy is missing"),
        ({"test": 5, "corrupted": 5, "severities": (3, 3)}, "severities holds a value twice"),
        ({"test": 5, "corrupted": 5, "corruptions": ("contrast", "contrast")}, "corruptions holds a value twice"),
        ({"test": 5, "corrupted": 5, "corruptions": ()}, "corruptions is empty, but corrupted = 5"),
    ],
)
def test_probe_set_refuses(options, message):
    with pytest.raises(FeatdynError, match=message) as error:
        probe_set(TOY, **{"train": 5, "test": 5, **options})
    assert "\n" not in str(error.value)


def test_probe_set_type_checks_itself():
    good = probe_set(TOY, train=3, test=3)
    with pytest.raises(ValueError, match="coords: needs sample"):
        ProbeSet(good.pixels, {"sample": good.coords["sample"]})
    with pytest.raises(ValueError, match="label has shape"):
        ProbeSet(good.pixels, {**good.coords, "label": good.coords["label"][:-1]})
    with pytest.raises(ValueError, match="duplicates"):
        ProbeSet(good.pixels, {**good.coords, "sample": good.coords["corruption"]})


def test_options_are_documented():
    from featdyn.data import DataOptions, LabelOptions

    for options in (DataOptions, LabelOptions, ProbeOptions):
        assert all(field.description for field in options.model_fields.values())
        assert options.model_validate_json(options().model_dump_json()) == options()
