"""Networks by name: sizes, shapes, options, and what is said when something does not fit."""

import sys

import pytest
import torch
from torch import nn

from featdyn.errors import NetworkError
from featdyn.networks import build, names

OURS = ["resnet20", "mlp", "cnn", "transformer"]
TORCHVISION = ["resnet18", "vgg16", "vgg16_bn", "vit"]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_names_describe_every_network():
    assert list(names()) == [*OURS, "words", *TORCHVISION]
    assert all("\n" not in text and text for text in names().values())


def test_resnet20_has_the_parameters_of_the_paper():
    assert parameters(build("resnet20", classes=10, shape=(3, 32, 32))) == 269_722
    # One channel less in the stem: 2 * 16 * 9 weights.
    assert parameters(build("resnet20", classes=10, shape=(1, 28, 28))) == 269_722 - 288


def test_resnet20_names_its_blocks():
    network = build("resnet20", classes=10, shape=(3, 32, 32))
    blocks = [f"s{stage}b{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
    assert [name for name, _ in network.named_children()] == ["stem", *blocks, "pooled", "fc"]


def test_resnet20_shortcut_holds_no_parameters_and_pads_both_sides():
    network = build("resnet20", classes=2, shape=(1, 7, 5), width=4)
    block = network.s2b1.eval()
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
    x = torch.rand(3, 4, 7, 5)  # not negative: the last ReLU lets it pass
    y = block(x)
    assert y.shape == (3, 8, 4, 3)
    assert torch.equal(y[:, 2:6], x[:, :, ::2, ::2])
    assert not y[:, :2].any()
    assert not y[:, 6:].any()


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 7, 5), (1, 1, 1)])
def test_ours_take_any_image(name, shape):
    network = build(name, classes=3, shape=shape).eval()
    assert network(torch.zeros(2, *shape)).shape == (2, 3)


def test_mlp_and_cnn_are_free_of_batchnorm():
    for name in ("mlp", "cnn"):
        network = build(name, classes=10, shape=(3, 32, 32))
        assert not list(network.buffers())
        assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in network.modules())


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (3, 2), (7, 5)])
def test_a_cnn_takes_any_height_and_width(sides):
    """Pooling rounds up."""
    network = build("cnn", classes=3, shape=(2, *sides), widths=(4, 4, 4))
    assert network(torch.randn(5, 2, *sides)).shape == (5, 3)
    assert network[:-2](torch.randn(5, 2, *sides)).shape[2:] == tuple(-(-side // 8) for side in sides)


def test_widths_are_the_widths():
    assert parameters(build("mlp", classes=10, shape=(1, 8, 8), widths=[5, 7])) == 65 * 5 + 6 * 7 + 8 * 10
    assert parameters(build("mlp", classes=10, shape=(1, 8, 8), widths=[])) == 65 * 10
    assert parameters(build("cnn", classes=10, shape=(1, 8, 8), widths=(4, 6))) == 10 * 4 + (36 + 1) * 6 + 70


# Counts written out, of networks whose options are left as they are.
@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("mlp", (2, 3, 5), 31 * 256 + 257 * 128 + 129 * 7),
        ("cnn", (2, 3, 5), (18 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128 + 129 * 7),
        ("words", (12,), 1000 * 32 + 33 * 64 + 65 * 7),
        (
            "transformer",
            (2, 3, 5),
            10 * 128 + 3 * 128 + 2 * (4 * 128 + 129 * 384 + 129 * 128 + 129 * 512 + 513 * 128) + 2 * 128 + 129 * 7,
        ),
    ],
)
def test_parameters_of_our_networks_as_they_are(name, shape, count):
    network = build(name, classes=7, shape=shape)
    assert parameters(network) == count
    if name == "transformer":
        assert [block.heads for block in (network.block1, network.block2)] == [4, 4]
        assert float(network.embed.place.detach().std()) == pytest.approx(0.02, rel=0.15)


def test_words_are_embedded_and_averaged_whatever_their_order():
    torch.manual_seed(0)
    network = build("words", classes=3, shape=(4,), vocabulary=11, width=5, hidden=6)
    tokens = torch.tensor([[0, 3, 10, 3], [3, 3, 10, 0], [0, 3, 10, 10]])
    mean = network.embed.weight[tokens].mean(1)
    torch.testing.assert_close(network(tokens), network.fc(network.hidden(mean)))
    assert not torch.allclose(*network(tokens)[1:])


def test_weights_follow_the_global_seed():
    torch.manual_seed(3)
    first = build("resnet20", classes=10, shape=(1, 8, 8)).state_dict()
    torch.manual_seed(3)
    again = build("resnet20", classes=10, shape=(1, 8, 8)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


# The counts are those that torchvision's documentation lists for 1000 classes and three channels.
@pytest.mark.parametrize(
    ("name", "shape", "classes", "count"),
    [
        ("resnet18", (3, 224, 224), 1000, 11_689_512),
        ("resnet18", (3, 32, 32), 1000, 11_689_512 - 64 * 3 * (49 - 9)),
        ("resnet18", (1, 28, 28), 10, 11_689_512 - 64 * (3 * 49 - 9) - 513 * 990),
        ("vgg16", (3, 224, 224), 1000, 138_357_544),
        ("vgg16", (3, 32, 32), 10, 14_714_688 + 5_130),
        ("vgg16_bn", (3, 32, 32), 10, 14_714_688 + 2 * 4_224 + 5_130),
        ("vit", (3, 32, 32), 10, 4 * 4 * 3 * 192 + 192 + 66 * 192 + 6 * 444_864 + 2 * 192 + 1_930),
    ],
)
def test_torchvision_parameter_counts(name, shape, classes, count):
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        network = build(name, classes=classes, shape=shape)
    assert parameters(network) == count


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_the_width_of_vgg_scales_all_its_layers(name):
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        whole, quarter = (build(name, classes=10, shape=(3, 32, 32), **o) for o in ({}, {"width": 16}))
        assert build(name, classes=10, shape=(3, 32, 32), width=64).state_dict().keys() == whole.state_dict().keys()
    assert quarter.state_dict().keys() == whole.state_dict().keys()
    widths = [[m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (whole, quarter)]
    assert [4 * width for width in widths[1]] == widths[0]
    drawn = build(name, classes=10, shape=(3, 32, 32), width=16)
    assert drawn.eval()(torch.randn(2, 3, 32, 32)).std() > 0
    with pytest.raises(NetworkError, match="width=16 needs images up to 64 pixels, not 224x224"):
        build(name, classes=10, shape=(3, 224, 224), width=16)


def test_the_transformer_answers_from_its_last_row_and_sees_all_others_and_where_they_stand():
    torch.manual_seed(0)
    network = build("transformer", classes=7, shape=(1, 3, 9), depth=1, heads=2, width=8).eval()
    x = torch.nn.functional.one_hot(torch.tensor([[[2, 5, 8]], [[5, 2, 8]], [[2, 6, 8]]]), 9).float()
    out = network(x).detach()
    assert (out[0] - out[1]).abs().max() > 1e-4
    assert (out[0] - out[2]).abs().max() > 1e-4
    network.embed.place.data[:2] = network.embed.place.data[0]  # no places: a sum has no order
    out = network(x).detach()
    torch.testing.assert_close(out[0], out[1])


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 66, 66)])
def test_torchvision_networks_take_any_image(name, shape):
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        network = build(name, classes=3, shape=shape).eval()
        assert network(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("name", TORCHVISION)
def test_small_torchvision_networks_start_finite_and_unequal(name):
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = build(name, classes=4, shape=(1, 8, 8))
    out = network(torch.randn(2, 1, 8, 8))
    assert out.isfinite().all()
    if name != "vit":  # torchvision's head starts at zero
        assert out.std() > 0
    if name.startswith("vgg"):
        weights = network.classifier.weight.detach()
        assert (float(weights.mean()), float(weights.std())) == pytest.approx((0, 0.01), abs=1e-3)
        assert not network.classifier.bias.any()


def test_resnet18_keeps_the_resolution_of_small_images():
    pytest.importorskip("torchvision")
    network = build("resnet18", classes=10, shape=(3, 32, 32)).eval()
    assert network.layer1(network.maxpool(network.conv1(torch.zeros(1, 3, 32, 32)))).shape == (1, 64, 32, 32)


# Up to 64 pixels, by the longer side, images have the small stem: 3x3 at stride 1.
@pytest.mark.parametrize(
    ("shape", "stem"),
    [
        ((3, 64, 64), (3, 1)),
        ((2, 9, 64), (3, 1)),
        ((3, 65, 9), (7, 2)),
        ((3, 9, 65), (7, 2)),
        ((1, 80, 70), (7, 2)),
    ],
)
def test_the_stem_of_resnet18_follows_the_longer_side_and_the_channels(shape, stem):
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        conv = build("resnet18", classes=2, shape=shape).conv1
    assert (conv.in_channels, conv.kernel_size, conv.stride) == (shape[0], stem[:1] * 2, stem[1:] * 2)
    assert conv.bias is None


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "vgg16_bn"])
@pytest.mark.parametrize("shape", [(3, 4, 32), (3, 32, 4), (2, 1, 64), (1, 70, 66)])
def test_torchvision_networks_take_images_that_are_no_squares(name, shape):
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        network = build(name, classes=3, shape=shape).eval()
        assert network(torch.zeros(2, *shape)).shape == (2, 3)


def test_the_vision_transformer_has_the_parts_that_are_asked_for():
    pytest.importorskip("torchvision")
    options = {"patch": 4, "depth": 2, "heads": 2, "width": 8, "mlp_width": 20}
    with torch.device("meta"):
        small, usual = build("vit", classes=5, shape=(2, 8, 8), **options), build("vit", classes=5, shape=(3, 8, 8))
    of_layer = 4 * 8 + (24 * 8 + 24) + (8 * 8 + 8) + (20 * 8 + 20) + (8 * 20 + 8)
    assert parameters(small) == (2 * 16 * 8 + 8) + 5 * 8 + 8 + 2 * of_layer + 2 * 8 + 9 * 5
    assert {layer.num_heads for layer in small.encoder.layers} == {2}
    assert [layer.num_heads for layer in usual.encoder.layers] == [3] * 6


@pytest.mark.parametrize(
    ("side", "patch"),
    [(8, 1), (11, 11), (28, 4), (32, 4), (64, 8), (65, 5), (66, 6), (67, 67), (70, 5), (96, 8), (224, 16)],
)
def test_vit_fits_its_patches(side, patch):
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        assert build("vit", classes=10, shape=(3, side, side)).patch_size == patch


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet21", {}, r"unknown network 'resnet21'; did you mean resnet20\? there are resnet20, mlp"),
        ("mlp", {"width": 3}, "mlp has no option 'width'; it has widths"),
        ("vgg16", {"depth": 3}, "vgg16 has no option 'depth'; it has width"),
        ("mlp", {"widths": 3}, "mlp: widths must be a list of positive integers, not 3"),
        ("cnn", {"widths": [8, 0]}, "cnn: widths must be a list of positive integers"),
        ("transformer", {"heads": 5}, "transformer: heads=5 does not divide width=128"),
        ("resnet20", {"width": 1.5}, "resnet20: width must be a positive integer, not 1.5"),
        ("resnet20", {"width": True}, "resnet20: width must be a positive integer, not True"),
        ("resnet20", {"width": 0}, "resnet20: width must be a positive integer, not 0"),
        ("resnet20", {"width": [3]}, r"resnet20: width must be a positive integer, not \[3\]"),
        ("mlp", {"widths": [4, True]}, "mlp: widths must be a list of positive integers"),
        ("mlp", {"alpha": "2"}, "mlp: alpha must be a positive number, not '2'"),
        ("mlp", {"alpha": True}, "mlp: alpha must be a positive number, not True"),
        ("mlp", {"alpha": float("nan")}, "mlp: alpha must be a positive number, not nan"),
    ],
)
def test_what_does_not_fit_is_named(name, options, says):
    with pytest.raises(NetworkError, match=says) as caught:
        build(name, classes=10, shape=(3, 32, 32), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [("cnn", 0, (3, 32, 32)), ("cnn", 10, (3, 0, 32)), ("cnn", 10, (32, 32)), ("words", 0, (4,)), ("words", 3, (0,))],
)
def test_impossible_sizes_are_refused(name, classes, shape):
    with pytest.raises(NetworkError, match="must be"):
        build(name, classes=classes, shape=shape)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((3, 32, 24), {}, "square images, not 32x24"),
        ((3, 32, 32), {"patch": 5}, "patch=5 does not divide"),
        ((3, 32, 32), {"heads": 5}, "heads=5 does not divide width=192"),
    ],
)
def test_vit_refuses_what_it_cannot_tile(shape, options, says):
    with pytest.raises(NetworkError, match=says):
        build("vit", classes=10, shape=shape, **options)


@pytest.mark.parametrize("name", TORCHVISION)
def test_without_torchvision_one_line_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(NetworkError, match=r"needs torchvision.*featdyn\[vision\]") as caught:
        build(name, classes=10, shape=(3, 32, 32))
    assert "\n" not in str(caught.value)
