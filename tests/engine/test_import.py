"""Recordings of other tools against what their independent writers wrote, value by value; and what is refused."""

from __future__ import annotations

import fcntl
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file

from featdyn.analysis.driver import analyze
from featdyn.capture.foreign import import_recording
from featdyn.errors import FeatdynError
from featdyn.store import Run, verify
from tests.engine import foreign_writers as foreign


def same(run: Run, layer: str, t: int, expected: np.ndarray) -> None:
    """Assert that a layer holds these values, to the bit, in their own type."""
    found = run.values(f"layers/{layer}/activation")[t]
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


def nothing_left(folder: Path) -> None:
    """Assert that no store was begun."""
    assert not (folder / "r.zarr").exists()


def test_pico_keeps_activations_weights_and_gradients_of_weights(tmp_path, featdyn):
    modules = ["layers.0.attention.v_proj", "layers.0.swiglu.w_2", "layers.1.attention.v_proj"]
    written = foreign.pico(tmp_path / "pico", (0, 500, 2000), modules, samples=9, width=5)
    code, out, err = featdyn("import", tmp_path / "pico", "--store", tmp_path / "r.zarr")
    assert (code, out) == (0, f"{tmp_path}/r.zarr: 3 checkpoints, steps 0 to 2000, 3 layers\n"), err
    run = Run(tmp_path / "r.zarr")
    assert run.values("step").tolist() == [0, 500, 2000]
    assert run.layers == modules
    for t, step in enumerate(written):
        for module in modules:
            same(run, module, t, written[step]["activations"][module].float().numpy())
            assert torch.equal(run.state(t)[f"{module}.weight"], written[step]["weights"][module])
            gradients = run.state(t, "weight_gradients")
            assert torch.equal(gradients[f"{module}.weight"], written[step]["gradients"][module])
    norms = np.linalg.norm(run.values(f"layers/{modules[1]}/activation").astype(np.float64), axis=2)
    np.testing.assert_allclose(run.values("cube/activation_norm")[:, 1], norms, rtol=1e-6)
    assert verify(tmp_path / "r.zarr").sound


def test_a_pico_run_grows_and_a_folder_may_be_given_alone(tmp_path):
    foreign.pico(tmp_path / "pico", (0, 10, 20), ["a", "b"], samples=4, width=3)
    last = tmp_path / "pico" / "checkpoints" / "step_20"
    last.rename(tmp_path / "later")
    assert import_recording(tmp_path / "pico", tmp_path / "r.zarr").values("step").tolist() == [0, 10]
    (tmp_path / "later").rename(last)
    done: list[tuple[int, int]] = []
    run = import_recording(tmp_path / "pico", tmp_path / "r.zarr", progress=lambda *n: done.append(n))
    assert done == [(3, 3)]
    assert run.values("step").tolist() == [0, 10, 20]
    whole = import_recording(tmp_path / "pico", tmp_path / "whole.zarr")
    for spec in whole.schema.arrays:
        np.testing.assert_array_equal(run.values(spec.path), whole.values(spec.path))
    alone = import_recording(last / "learning_dynamics", tmp_path / "s.zarr", layers=["b"])
    assert (alone.values("step").tolist(), alone.layers) == ([20], ["b"])


def test_shards_of_saev_lie_behind_each_other_and_their_pickle_is_never_opened(tmp_path):
    for examples, name in ((11, "odd"), (8, "full")):
        trace = tmp_path / f"{name}.trace"
        written = foreign.saev(tmp_path / name, examples, (5, 11), patches=6, width=4, per_shard=4, trace=trace)
        run = import_recording(tmp_path / name, tmp_path / f"{name}.zarr", steps=[7])
        assert run.layers == ["layer5", "layer11"]
        assert run.schema["layers/layer5/activation"].dims == ("sample", "position", "feature")
        for i, layer in enumerate(run.layers):
            same(run, layer, 0, written[:, i])
        assert run.values("step").tolist() == [7]
        assert not trace.exists()


def test_tokens_of_vllm_are_samples_and_requests_their_origin(tmp_path):
    written = foreign.vllm(tmp_path / "states", (3, 1, 5), layers=2, width=4)
    run = import_recording(tmp_path / "states", tmp_path / "r.zarr")
    for i in range(2):
        same(run, f"hidden_states.{i}", 0, torch.cat([s[:, i] for s, _ in written.values()]).float().numpy())
    assert run.values("token_id").tolist() == torch.cat([ids for _, ids in written.values()]).tolist()
    assert run.values("origin").tolist() == ["req-0"] * 3 + ["req-1"] + ["req-2"] * 5
    assert run.values("sample")[3:6].tolist() == ["req-1:0", "req-2:0", "req-2:1"]
    with (tmp_path / "states" / "req-1.safetensors.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FeatdynError, match=r"req-1\.safetensors: is being written"):
            import_recording(tmp_path / "states", tmp_path / "s.zarr")


@pytest.mark.parametrize("kind", ["npy", "pt", "mat", "hdf5"])
def test_feature_folders_of_thingsvision_keep_their_images(tmp_path, kind):
    if kind == "hdf5":
        pytest.importorskip("h5py")
    names = [f"image_{i}.jpg" for i in (3, 1, 2, 9, 7)]
    features = foreign.values(5, 6)
    foreign.thingsvision(tmp_path / "conv1", features, kind, names)
    run = import_recording(tmp_path / "conv1", tmp_path / "r.zarr")
    same(run, "conv1", 0, features)
    assert run.values("sample").tolist() == names
    foreign.thingsvision(tmp_path / "plain", features, kind)
    run = import_recording(tmp_path / "plain", tmp_path / "s.zarr")
    same(run, "plain", 0, features)


def test_thingsvisions_modules_are_layers_and_parts_are_put_in_order(tmp_path):
    one, two = foreign.values(12, 3), foreign.values(12, 2, 4, 4, seed=1)
    for start, stop in ((0, 4), (4, 10), (10, 12)):
        for module, every in (("fc", one), ("layer1.0", two)):
            (tmp_path / "out" / module).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "out" / module / f"features_{start}-{stop}.npy", every[start:stop])
    run = import_recording(tmp_path / "out", tmp_path / "r.zarr")
    same(run, "fc", 0, one)
    same(run, "layer1.0", 0, two)
    (tmp_path / "split").mkdir()
    for i in range(12):
        np.save(tmp_path / "split" / f"features_{i + 1:02d}.npy", one[i : i + 1])
    same(import_recording(tmp_path / "split", tmp_path / "s.zarr"), "split", 0, one)
    for gone, message in (("out/fc/features_4-10.npy", "images 4 to 10 are missing"),
                          ("split/features_05.npy", "one is missing")):  # fmt: skip
        (tmp_path / gone).unlink()
        with pytest.raises(FeatdynError, match=message):
            import_recording(tmp_path / gone.partition("/")[0], tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_arrays_are_taken_by_the_names_of_their_axes(tmp_path, dtype, featdyn):
    values = foreign.values(4, 3, 7, 5).astype(dtype)  # feature, checkpoint, sample, token
    np.save(tmp_path / "layer.npy", values)
    np.savez_compressed(tmp_path / "two.npz", a=values, b=np.asfortranarray(values[:2]))
    plain = values.astype(values.dtype.newbyteorder("="))
    axes = "feature,checkpoint,sample,token"
    for source, layers in (("layer.npy", ["layer"]), ("two.npz", ["a", "b"])):
        store = tmp_path / f"{source}.zarr"
        code, _, err = featdyn("import", tmp_path / source, "--store", store, "--axes", axes, "--steps", "0,10,30")
        assert code == 0, err
        run = Run(store)
        assert run.layers == layers
        for t in range(3):
            same(run, layers[0], t, plain.transpose(1, 2, 0, 3)[t])
        assert run.schema[f"layers/{layers[0]}/activation"].dims == ("sample", "feature", "token")
        assert run.values("step").tolist() == [0, 10, 30]


def test_files_of_one_step_each_are_put_in_the_order_of_their_steps(tmp_path, featdyn):
    held = {step: foreign.values(6, 3, seed=step) for step in (100, 5, 20)}
    for step, values in held.items():
        np.savez(tmp_path / f"step{step}.npz", fc=values, head=values[:, :2])
    pattern = tmp_path / "step*.npz"
    code, out, _ = featdyn("import", pattern, "--store", tmp_path / "r.zarr", "--axes", "sample,feature")
    assert (code, out) == (0, f"{tmp_path}/r.zarr: 3 checkpoints, steps 5 to 100, 2 layers\n")
    for t, step in enumerate(sorted(held)):
        same(Run(tmp_path / "r.zarr"), "head", t, held[step][:, :2])
    code, _, err = featdyn(
        "import", pattern, "--store", tmp_path / "h.zarr", "--axes", "sample,feature", "--dtype", "float16"
    )
    assert code == 0, err
    same(Run(tmp_path / "h.zarr"), "fc", 0, held[5].astype(np.float16))


def test_layers_choose_among_arrays_of_several_shapes(tmp_path, featdyn):
    held = {step: foreign.values(6, 3, seed=step) for step in (5, 20)}
    for step, values in held.items():
        np.savez(tmp_path / f"step{step}.npz", fc=values, maps=values[:, :, None], labels=np.arange(6))
    asked = ["--store", tmp_path / "r.zarr", "--axes", "sample,feature"]
    code, _, err = featdyn("import", tmp_path / "step*.npz", *asked)
    assert (code, err.count("which the axes sample,feature do not name")) == (1, 1)
    code, _, err = featdyn("import", tmp_path / "step*.npz", *asked, "--layers", "fc")
    assert code == 0, err
    for t, values in enumerate(held.values()):
        same(Run(tmp_path / "r.zarr"), "fc", t, values)


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_names_its_axes_and_steps_itself(tmp_path, version):
    group, values = zarr.open_group(tmp_path / "a", mode="w", zarr_format=version), foreign.values(2, 9, 4)
    for name, array, axes in (("fc", values, ("checkpoint", "sample", "feature")),
                              ("step", np.array([3, 8]), ("checkpoint",)),
                              ("weights", np.ones((2, 2)), ("x", "y"))):  # fmt: skip
        made = {"dimension_names": axes} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": list(axes)}}
        group.create_array(name, data=array, chunks=array.shape, **made)
    run = import_recording(tmp_path / "a", tmp_path / "r.zarr")
    assert (run.layers, run.values("step").tolist()) == (["fc"], [3, 8])
    same(run, "fc", 1, values[1])
    single = zarr.create_array(tmp_path / "one.zarr", data=values[0], zarr_format=version)
    assert single.shape == (9, 4)
    same(import_recording(tmp_path / "one.zarr", tmp_path / "s.zarr", axes=["sample", "feature"]), "one", 0, values[0])


def test_analyses_of_features_answer_and_others_say_what_is_missing(tmp_path, featdyn):
    values = np.cumsum(foreign.values(5, 40, 6), axis=0)
    np.savez(tmp_path / "run.npz", fc=values, head=values[..., :3])
    run = import_recording(
        tmp_path / "run.npz", tmp_path / "r.zarr", axes=["checkpoint", "sample", "feature"], steps=range(5)
    )
    drift = analyze(run, "drift")
    moved = np.linalg.norm(values[-1] - values[0], axis=1) / np.linalg.norm(values[0], axis=1)
    np.testing.assert_allclose(drift.motion.sel(cut="fc").values[0, 0, -1], moved.mean(), rtol=1e-5)
    assert drift.prefix_distance.isnull().all()
    spectra = analyze(Run(run.path), "spectra")
    eigenvalues = np.linalg.eigvalsh(np.cov(values[2].astype(np.float64).T, bias=True))
    np.testing.assert_allclose(spectra.eigenvalue.sel(layer="fc").values[0, 2, :6][::-1], eigenvalues, rtol=1e-4)
    for name, options in (("density", {"permutations": 19}), ("layer_isotropy", {"of": "activation"})):
        assert analyze(Run(run.path), name, **options).sizes
    for command in (["info", run.path], ["query", run.path, "cube.activation_norm", "--reduce", "mean:sample"],
                    ["query", run.path, "results.drift.motion"],
                    ["report", run.path, "-o", tmp_path / "page.html"]):  # fmt: skip
        code, out, err = featdyn(*command)
        assert code == 0, (command, err)
        assert out
    net = torch.nn.Linear(6, 3)
    for name, missing in (("consistency", "labels"), ("averaging", "labels"), ("controls", "labels"),
                          ("rewind", "labels"), ("batchnorm", "labels"), ("noise", "training data"),
                          ("layer_isotropy", "gradient"), ("isotropy", "noise")):  # fmt: skip
        code, _, err = featdyn("analyze", run.path, name)
        assert code == 1
        assert len(err.splitlines()) == 1
        assert missing in err.partition("zarr: ")[2]
        assert "unexpected" not in err
    with pytest.raises(FeatdynError, match="no weights and inputs and outputs were recorded"):
        analyze(Run(run.path), "drift", model=net)


def test_labels_alone_do_not_make_a_network(tmp_path):
    group = zarr.open_group(tmp_path / "a", mode="w", zarr_format=3)
    group.create_array("fc", data=foreign.values(1, 9, 4), dimension_names=("checkpoint", "sample", "feature"))
    group.create_array("step", data=np.array([3]), dimension_names=("checkpoint",))
    group.create_array("label", data=np.arange(9) % 3, dimension_names=("sample",))
    run = import_recording(tmp_path / "a", tmp_path / "r.zarr")
    assert run.values("label").tolist() == [0, 1, 2] * 3
    with pytest.raises(FeatdynError, match="consistency needs weights and inputs and outputs: none were recorded"):
        analyze(run, "consistency", model=torch.nn.Linear(4, 3))


def test_shards_of_saev_without_a_token_of_a_class_have_those_of_the_content(tmp_path):
    every = foreign.saev(tmp_path / "a", 6, (1,), patches=3, width=2, per_shard=4, trace=tmp_path / "trace")
    said = json.loads((tmp_path / "a" / "metadata.json").read_text())
    del said["content_tokens_per_example"]
    (tmp_path / "a" / "metadata.json").write_text(json.dumps({**said, "cls_token": False, "patches_per_ex": 4}))
    run = import_recording(tmp_path / "a", tmp_path / "r.zarr")
    np.testing.assert_array_equal(run.values("layers/layer1/activation")[0], every[:, 0])


def test_files_that_do_not_go_together_are_told(tmp_path):
    def parts(**arrays: np.ndarray) -> Path:
        folder = tmp_path / f"parts{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name, array in arrays.items():
            np.save(folder / f"features{name}.npy", array)
        return folder

    def saev(shards: object = None, **changes: object) -> Path:
        folder = tmp_path / f"saev{len(list(tmp_path.iterdir()))}"
        foreign.saev(folder, 6, (1, 2), patches=3, width=2, per_shard=4, trace=tmp_path / "trace")
        held = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(json.dumps({**held, **changes}))
        if shards is not None:
            (folder / "shards.json").write_text(json.dumps(shards))
        return folder

    def vllm(states: torch.Tensor, tokens: int) -> Path:
        folder = tmp_path / f"vllm{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        save_file({"hidden_states": states, "token_ids": torch.zeros(tokens)}, folder / "a.safetensors")
        return folder

    def named(step: int, *names: str) -> Path:
        folder = tmp_path / f"named{len(list(tmp_path.iterdir()))}" / f"step{step}"
        foreign.thingsvision(folder, foreign.values(2, 3), "npy", names)
        return folder

    one, other = (named(1, "a.jpg", "b.jpg"), named(1, "a.jpg", "c.jpg")), (named(2, "a.jpg", "b.jpg"), named(2))
    wide, narrow = foreign.values(3, 5), foreign.values(3, 4)
    (tmp_path / "nothing").mkdir()
    mixed = parts(_1=narrow)
    torch.save(torch.zeros(3, 4), mixed / "features_2.pt")
    for source, message in (
        (tmp_path / "nothing", "is none of pico, saev, vllm, thingsvision, arrays"),
        (
            parts(_1=narrow, _2=wide),
            r"do not go together: float32 of shape \(4,\) a sample in the first, float32 of \(5",
        ),
        (parts(_1=narrow, _2=narrow.astype(np.float64)), "do not go together"),
        (parts(_1=narrow, _3=narrow), "its parts are 1, 3: one is missing"),
        (parts(_0=narrow, _1=narrow), "its parts are 0, 1: one is missing"),
        (parts(_a=narrow, _b=narrow), "holds features_a.npy, features_b.npy, which are not parts of one"),
        (parts(**{"_0-3": narrow, "_4-7": narrow}), "features of images 3 to 4 are missing, or there twice"),
        (parts(**{"": foreign.values(4)}), r"holds an array of shape \(4,\), not \(images, ...\)"),
        (mixed, "holds features as .npy and .pt: keep one"),
        (saev(layers=[1, 1]), r"layers \[1, 1\] are not distinct"),
        (saev(layers=[]), r"layers \[\] are not distinct"),
        (saev(dtype="float16"), "protocol 2.1 of float16; 2.1 of float32 is known"),
        (saev([{"name": "acts000000.bin"}]), "does not list name and n_examples of each shard"),
        (vllm(torch.zeros(3, 2), 3), r"of shape \(3, 2\) are not \(token, layer, feature\) of 3 tokens"),
        (vllm(torch.zeros(3, 2, 4), 2), r"of shape \(3, 2, 4\) are not \(token, layer, feature\) of 2 tokens"),
        (vllm(torch.zeros(3, 2, 4).double(), 3), "hidden_states are F64, not of BF16, F16, F32"),
        ([one[1], other[0]], "step 1 and step 2 are of other samples: their sample differs"),
        ([one[0], other[1]], "step 1 and step 2 are of other samples: their sample differs"),
    ):
        with pytest.raises(FeatdynError, match=message):
            import_recording(source, tmp_path / "r.zarr")
        assert not (tmp_path / "r.zarr").exists()
    run = import_recording([one[0], other[0]], tmp_path / "r.zarr")
    assert (run.values("step").tolist(), run.values("sample").tolist()) == ([1, 2], ["a.jpg", "b.jpg"])
    whole = import_recording(parts(**{"_0-3": narrow, "_3-6": wide[:, :4]}), tmp_path / "whole.zarr")
    found = whole.values(next(a.path for a in whole.schema.arrays if a.path.startswith("layers/")))[0]
    np.testing.assert_array_equal(found, np.concatenate([narrow, wide[:, :4]]))


def test_what_is_bad_or_half_there_is_one_line_and_leaves_nothing(tmp_path):
    trace = tmp_path / "trace"
    pico, states = tmp_path / "pico", tmp_path / "states"
    foreign.pico(pico, (0, 1), ["a"], samples=4, width=3)
    foreign.saev(tmp_path / "saev", 6, (1,), patches=3, width=2, per_shard=4, trace=trace)
    np.savez(tmp_path / "several.npz", features=np.zeros((4, 3)), other=np.zeros(5))
    foreign.vllm(states, (2, 3), layers=1, width=2)
    foreign.thingsvision(tmp_path / "fc", foreign.values(4, 3), "npy", ["a.jpg", "b.jpg"])
    np.save(tmp_path / "a.npy", foreign.values(2, 4, 3))
    np.save(tmp_path / "int.npy", np.ones((4, 3), int))
    np.save(tmp_path / "object.npy", np.array([foreign.Bomb(trace)] * 2, dtype=object))
    np.savez(tmp_path / "object.npz", a=np.array([[foreign.Bomb(trace)] * 2], dtype=object))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    for name, shape in (("none", (0, 3)), ("flat", (3, 0)), ("never", (0, 3, 2))):
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.float32))
    np.savez(tmp_path / "whole.npz", a=foreign.values(4, 300))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-400])

    def made(name: str, change) -> Path:
        """Copy a recording and do something to it."""
        copy = tmp_path / f"bad{len(list(tmp_path.glob('bad*')))}" / name
        shutil.copytree(tmp_path / name, copy, symlinks=True)
        change(copy)
        return copy

    def step(folder: Path) -> Path:
        return folder / "checkpoints" / "step_1" / "learning_dynamics" / "val_activations.pt"

    def said(folder: Path, **changes: object) -> None:
        held = json.loads((folder / "metadata.json").read_text())
        (folder / "metadata.json").write_text(
            json.dumps({k: v for k, v in {**held, **changes}.items() if v is not None})
        )

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-9])

    axes = {"axes": ["sample", "feature"]}
    for source, options, message in (
        (tmp_path / "nowhere", {}, "is not there"),
        (tmp_path / "trace", {}, "is not there"),
        (made("pico", lambda f: step(f).unlink()), {}, "val_activations.pt: is not there.*another batch at each step"),
        (made("pico", lambda f: cut(step(f))), {}, "val_activations.pt: cannot be read"),
        (made("pico", lambda f: torch.save({"a": torch.zeros(5, 3)}, step(f))), {}, "step 0 has 4 samples, step 1 5"),
        (made("pico", lambda f: torch.save({"b": torch.zeros(4, 3)}, step(f))), {}, "differ in layer a"),
        (made("pico", lambda f: torch.save({"a": torch.ones(4, 3).int()}, step(f))), {}, "holds int32, not real"),
        (made("pico", lambda f: torch.save([1], step(f))), {}, "holds no tensors by module"),
        (made("pico", lambda f: step(f).write_bytes(pickle.dumps(foreign.Bomb(trace)))), {}, "not loaded|cannot be"),
        (made("saev", lambda f: (f / "shards.json").unlink()), {}, "shards.json: cannot be read"),
        (made("saev", lambda f: (f / "acts000001.bin").unlink()), {}, "acts000001.bin: cannot be read"),
        (made("saev", lambda f: (f / "acts000000.bin").write_bytes(b"123")), {}, "is cut short"),
        (made("saev", lambda f: said(f, n_examples=9)), {}, "hold 6 of 9 examples"),
        (made("saev", lambda f: said(f, d_model=None)), {}, "does not say 'd_model'"),
        (made("saev", lambda f: said(f, protocol="1.1")), {}, "protocol 1.1"),
        (made("saev", lambda f: said(f, layers=[1, 1])), {}, "not distinct|cut short"),
        (made("states", lambda f: cut(f / "req-1.safetensors")), {}, "req-1.safetensors: cannot be read"),
        (made("states", lambda f: save_file({"hidden_states": torch.zeros(3, 2, 2), "token_ids": torch.zeros(3)},
                                            f / "req-2.safetensors")), {}, "files hold 1, 2 layers"),
        (made("states", lambda f: save_file({"x": torch.zeros(1)}, f / "req-3.safetensors")), {}, "does not hold"),
        (tmp_path / "fc", {}, "names 2 images, and there are features of 4"),
        (tmp_path / "a.npy", {}, "nothing says what the 3 axes of a are"),
        (tmp_path / "a.npy", axes, "which the axes sample,feature do not name"),
        (tmp_path / "a.npy", {"axes": ["checkpoint", "sample", "feature"]}, "2 checkpoints and 0 steps are known"),
        (tmp_path / "a.npy", {"axes": ["checkpoint", "sample", "x"], "steps": [3, 3]}, "steps must grow"),
        (tmp_path / "a.npy", {"axes": ["a", "b", "c"]}, "needs sample"),
        (tmp_path / "cut.npy", {"axes": ["checkpoint", "sample", "x"], "steps": [1, 2]}, "cut.npy: cannot be read"),
        (tmp_path / "cut.npz", axes, "cut.npz: cannot be read"),
        (tmp_path / "int.npy", axes, "holds int64, not real numbers"),
        (tmp_path / "object.npy", axes, "object.npy: cannot be read"),
        (tmp_path / "object.npz", axes, "holds object, not real numbers"),
        (states, {**axes}, "axes are given for plain arrays, and this is vllm"),
        (states, {"layers": ["x*"]}, "no layer x*"),
        (tmp_path / "several.npz", {"layers": ["featurse"]}, "no layer featurse; there are features, other"),
        (tmp_path / "a.npy", {"axes": ["checkpoint", "sample", "x"], "steps": [0.5, 1]}, "steps must be whole"),
        (pico, {"steps": [1, 2]}, "says the steps of its checkpoints itself"),
        (states, {"format": "pico"}, "states: is no recording of the format pico"),
        (states, {"format": "other"}, "no format 'other'"),
        (tmp_path / "none.npy", axes, "layer none has 0 samples"),
        (tmp_path / "flat.npy", axes, "layer flat has 3 samples of shape"),
        (tmp_path / "none.npy", {"axes": ["checkpoint", "x"]}, "needs sample"),
        (tmp_path / "never.npy", {"axes": ["checkpoint", "sample", "x"], "steps": []}, "holds no checkpoint"),
        ([], {}, "nothing to import"),
    ):  # fmt: skip
        with pytest.raises(FeatdynError, match=message.replace("x*", "x")) as caught:
            import_recording(source, tmp_path / "r.zarr", **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "r.zarr").exists(), message
    assert not trace.exists()


def test_another_recording_does_not_continue_a_store(tmp_path):
    axes = ["checkpoint", "sample", "feature"]
    values = foreign.values(3, 5, 2)
    for name, array in (("a", values), ("b", values + 1), ("c", values[..., :1]), ("d", values[:, :4])):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "fc.npy", array)
    run = import_recording(tmp_path / "a", tmp_path / "r.zarr", axes=axes, steps=[0, 1, 2])
    before = run.fingerprint
    assert import_recording(tmp_path / "a", tmp_path / "r.zarr", axes=axes, steps=[0, 1, 2]).fingerprint == before
    for name, steps, message in (
        ("b", [0, 1, 2], "fc has other values at step 2"),
        ("a", [0, 1, 5], r"steps \[0, 1, 2\] there, \[0, 1, 5\] here"),
        ("c", [0, 1, 2], "of another shape or type"),
        ("d", [0, 1, 2], "of another shape or type"),
    ):
        with pytest.raises(FeatdynError, match=message):
            import_recording(tmp_path / name, tmp_path / "r.zarr", axes=axes, steps=steps)
    assert Run(tmp_path / "r.zarr").fingerprint == before


def test_what_fails_late_leaves_the_checkpoints_before_and_is_resumed(tmp_path):
    held = {step: foreign.values(6, 3, seed=step) for step in (1, 2, 3)}
    for step, values in held.items():
        np.save(tmp_path / f"step{step}.npy", values * (1e6 if step == 2 else 1.0))
    paths, options = sorted(tmp_path.glob("*.npy")), {"axes": ["sample", "feature"], "dtype": "float16"}
    with pytest.raises(FeatdynError, match="features/activation at checkpoint 1 does not fit float16"):
        import_recording(paths, tmp_path / "r.zarr", **options)
    assert Run(tmp_path / "r.zarr").values("step").tolist() == [1]
    np.save(tmp_path / "step2.npy", held[2])
    run = import_recording(paths, tmp_path / "r.zarr", **options)
    for t, step in enumerate(held):
        same(run, "features", t, held[step].astype(np.float16))


def test_only_a_block_is_in_memory_at_a_time(tmp_path, monkeypatch):
    from featdyn.capture.foreign import arrays

    np.save(tmp_path / "fc.npy", foreign.values(2, 3000, 8))
    seen: list[tuple[int, int]] = []
    rows = arrays._rows
    monkeypatch.setattr(arrays, "_rows", lambda *a: (seen.append(a[-2:]), rows(*a))[1])
    run = import_recording(tmp_path / "fc.npy", tmp_path / "r.zarr", axes=["checkpoint", "sample", "f"], steps=[0, 1])
    assert seen == [(0, 1024), (1024, 2048), (2048, 3000)] * 2
    assert run.schema.blocks == 3
