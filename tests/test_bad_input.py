"The wrong calls of the page about bad input, on the NumPy kernels too; and single cases that the page does not tell."
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import pytest

from cs231n_lit import checks
from cs231n_lit.classifiers.fc_net import FullyConnectedNet, TwoLayerNet
from cs231n_lit.convolution import conv_forward_naive
from cs231n_lit.dropin import imresize
from cs231n_lit.fast_layers import affine_backward_fast, affine_forward_fast
from cs231n_lit.layers import affine_backward, affine_forward, dropout_backward, softmax_loss, svm_loss
from cs231n_lit.normalization import batchnorm_backward, batchnorm_forward, layernorm_forward
from cs231n_lit.solver import Solver, accuracy, load_checkpoint, save_checkpoint
from cs231n_lit.spatial_norm import spatial_batchnorm_forward, spatial_groupnorm_forward

NBS = Path(__file__).resolve().parent.parent / "nbs"


def calls_of_the_page():
    "The page's code up to the faults: its cases and what they are judged by."
    cells = nbformat.read(NBS / "27_bad_input.ipynb", 4).cells
    end = next(k for k, c in enumerate(cells) if c.source.startswith("## Faults"))
    return "\n".join(c.source for c in cells[:end] if c.cell_type == "code")


@pytest.mark.parametrize("isa", ["", "numpy"], ids=["compiled", "numpy"])
def test_every_wrong_call_is_refused_in_words(isa):
    "The page's own asserts, and its count, with the compiled kernels and without."
    code = calls_of_the_page() + "\nprint('tried', len(cases), len({(c.name, c.arg, c.given) for c in cases}), sum(not c.good for c in cases))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=NBS, env=os.environ | {"CS231N_LIT_ISA": isa, "MPLBACKEND": "agg"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    tried, distinct, bad = map(int, ran.stdout.split("tried ")[1].split())
    assert distinct > 4000 and bad == 0


def test_the_page_has_faults_enough():
    text = "".join(c.source for c in nbformat.read(NBS / "27_bad_input.ipynb", 4).cells)
    assert text.count("@fault(") >= 30


# Shared checks

@pytest.mark.parametrize("value", [np.array([2, 2]), np.ones(1), [2], 2.0, "2", None, True, np.bool_(1), {}])
def test_counts_are_whole_numbers(value):
    with pytest.raises(TypeError, match="^f: n needs a whole number, at least 1; got "):
        checks.check_count("f", "n", value)
    assert checks.check_count("f", "n", np.array(3)) == 3


@pytest.mark.parametrize("fields, cache, part", [
    ("x w b", (np.ones(1), [1.], np.ones(1)), "w is list"), ("x pool_param", (np.ones(1), np.ones(1)), "pool_param is ndarray"),
    ("affine_cache relu_cache", ((), ()), "relu_cache is tuple"), ("conv_cache relu_cache", (np.ones(1), np.ones(1)), "conv_cache is ndarray"),
    ("dropout_param mask", ((), None), "dropout_param is tuple")])
def test_parts_of_a_cache_have_their_kinds(fields, cache, part):
    with pytest.raises(TypeError, match=f"^f: cache needs to be the tuple .* that the forward pass returned; got a tuple whose {part}$"):
        checks.unpack_cache("f", cache, fields)


def test_dropout_does_not_take_a_sandwichs_cache():
    "Both are pairs with an array last, so that the shapes alone would not tell."
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match="dropout_param is tuple"):
        dropout_backward(x, ((x, x, x), x))
    with pytest.raises(TypeError, match="its?.*x is dict|whose x is dict"):
        affine_backward(x, ({}, x, x))


@pytest.mark.parametrize("first", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_numbers_and_lists_of_python_follow_the_first_array(first):
    x, own = np.ones((2, 3), first), np.dtype(first).newbyteorder("=")
    others = dict(a=2, b=2.5, c=True, d=[1, 2], e=[0.5, 1], f=[[1.5]], g=(), h=(np.float64(1), 2.), i=np.array([1, 2]), j=[np.ones(2)], k=np.int8(3))
    assert {a.dtype for a in checks.as_floats("f", x=x, **others)} == {own}
    assert {a.dtype for a in checks.as_floats("f", **others, x=x)[:-1]} == {np.dtype(float)}, "an array of whole numbers leads too, as float64"
    assert checks.as_floats("f", a=[1.], x=x)[0].dtype == own
    assert [a.dtype for a in checks.as_floats("f", x=x, y=np.float64(1), z=np.ones(1, "f2"))][1:] == [np.float64, np.float16], "NumPy's numbers keep their type"


def test_without_an_array_the_first_leads():
    assert [a.dtype for a in checks.as_floats("f", x=[1, 2], b=[0.])] == [np.float64] * 2
    assert [a.dtype for a in checks.as_floats("f", x=[np.float32(1)], b=[0.])] == [np.float32] * 2
    assert checks.as_float("f", "x", [np.float32(1)]).dtype == np.float32 and checks.as_float("f", "x", 1).dtype == np.float64


def test_layers_take_lists_beside_float32():
    x, w = np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)
    image, filters = np.ones((1, 1, 2, 2), np.float32), np.ones((1, 1, 2, 2), np.float32)
    outs = [affine_forward(x, w, [0., 0.5]), affine_forward([[1., 2, 3]], w, np.zeros(2, np.float32)), conv_forward_naive(image, filters, [0.5], {"stride": 1, "pad": 0}),
            batchnorm_forward(x, [1., 2, 3], [0., 0, 0], {"mode": "train"}), layernorm_forward(x, [1., 2, 3], (0.5, 0, 0), {}),
            spatial_batchnorm_forward(image, [2.], [0.], {"mode": "train"}), spatial_groupnorm_forward(image, [2.], [0.], 1, {})]
    assert {out.dtype for out, _ in outs} == {np.dtype(np.float32)}
    grads = affine_backward([[1., 2], [3, 4]], outs[0][1]) + batchnorm_backward([[1., 2, 3], [4, 5, 6]], outs[3][1])
    assert {g.dtype for g in grads} == {np.dtype(np.float32)}


def test_errors_of_affine_layers_show_the_images_as_given():
    x, b = np.ones((2, 3, 4, 4)), np.zeros(5)
    for f in affine_forward, affine_forward_fast:
        with pytest.raises(ValueError, match=rf"^{f.__name__}: w has D = 6 but x has D = 48: x is \(2, 3, 4, 4\), w is \(6, 5\)$"): f(x, np.ones((6, 5)), b)
    for f in affine_backward, affine_backward_fast:
        with pytest.raises(ValueError, match=rf"^{f.__name__}: w has D = 6 but x has D = 48: x is \(2, 3, 4, 4\), w is \(6, 5\)$"): f(np.ones((2, 5)), (x, np.ones((6, 5)), b))


def test_a_choice_may_come_from_a_generator():
    assert checks.check_choice("f", "mode", "b", (c for c in "abc")) == "b"
    with pytest.raises(ValueError, match="^f: mode needs to be one of 'a', 'b', 'c'; got 'd'$"): checks.check_choice("f", "mode", "d", (c for c in "abc"))


@pytest.mark.parametrize("y", [[0, 1, -1], [0, 1, 3], [0, 1, 2**63 - 1], np.array([0, 1, 255], np.uint8), np.array([0, 1, 2**64 - 1], np.uint64), [0, 1, -2**63]])
def test_labels_are_columns(y):
    for loss in softmax_loss, svm_loss:
        with pytest.raises(ValueError, match=f"^{loss.__name__}: y needs labels from 0 to 2, the scores' columns; got"): loss(np.zeros((3, 3)), y)


def test_types_to_compute_in():
    assert checks.check_dtype("f", None) == np.float64 and checks.check_dtype("f", "f2") == np.float16
    for wrong in int, "flaot", complex, "U3", object():
        with pytest.raises(TypeError, match="^f: dtype needs to be a floating-point type; got "): checks.check_dtype("f", wrong)


# Labels of the validation set

@pytest.mark.parametrize("y, error, words", [
    ([0, 1, 3], ValueError, "y needs labels from 0 to 2"), ([-1, 0, 1], ValueError, "y needs labels from 0 to 2"),
    ([0., 1., 2.], TypeError, "y needs whole numbers"), (["a", "b", "c"], TypeError, "y needs whole numbers")])
def test_an_accuracy_of_wrong_labels_is_not_zero_but_an_error(y, error, words):
    net = TwoLayerNet(2, 3, 3)
    with pytest.raises(error, match=words): accuracy(net, np.ones((3, 2)), y)
    data = {"X_train": np.ones((3, 2)), "y_train": [0, 1, 2], "X_val": np.ones((3, 2)), "y_val": y}
    with pytest.raises(error, match=words): Solver(net, data, batch_size=2, num_epochs=1, verbose=False).train()


# Checkpoints

@pytest.mark.parametrize("state, words", [
    ({3: 4}, "key 3"), ({"a": {(1, 2): 3}}, r"key \(1, 2\)"), ({"array": 1}, "key 'array'"), ({"a": [{"array": np.ones(2)}]}, "key 'array'"),
    ({"a/b": np.ones(1), "a": {"b": np.zeros(1)}}, "'a/b' is taken"), ({"checkpoint": np.ones(1)}, "is taken"), ({"file": np.ones(1)}, "is taken"),
    ({"allow_pickle": np.ones(1)}, "is taken")])
def test_states_that_would_not_come_back(state, words, tmp_path):
    with pytest.raises(ValueError, match=f"^save_checkpoint: .*{words}"): save_checkpoint(tmp_path / "a.npz", state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [print, {1}, 1j, b"a", object()])
def test_values_that_cannot_be_saved(value, tmp_path):
    with pytest.raises(TypeError, match="^save_checkpoint: /a/0 holds Python objects"): save_checkpoint(tmp_path / "a.npz", {"a": [value]})


def test_paths_of_all_kinds(tmp_path):
    for path in (tmp_path / "a.npz", str(tmp_path / "b.npz"), os.fsencode(tmp_path / "c.npz")):
        save_checkpoint(path, {"w": 1})
        assert load_checkpoint(path) == {"w": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz", "c.npz"]
    for wrong in None, 3, 2.5:
        with pytest.raises(TypeError, match="path needs to be a path"): save_checkpoint(wrong, {})
        with pytest.raises(TypeError, match="path needs to be a path"): load_checkpoint(wrong)


# A net's file

def npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("content", [
    b"", b"GIF89a", npz(W1=np.ones(3))[:200], npz(W1=np.array([print], object)), npz(np.savez_compressed, W1=np.zeros(10**6)), npz(W1=np.ones(3)), npz()],
    ids=["empty", "foreign", "cut", "pickle", "compressed", "other names", "nothing"])
def test_a_file_that_is_not_this_nets(content, tmp_path):
    path = tmp_path / "net.npz"
    path.write_bytes(content)
    net = FullyConnectedNet([4], 5, 3)
    before = {k: w.copy() for k, w in net.params.items()}
    with pytest.raises(ValueError, match="^FullyConnectedNet.load: .*net.npz (is not a file of saved parameters|holds)"): net.load(path)
    assert all(np.array_equal(net.params[k], w) for k, w in before.items())


def test_a_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.npz", "w") as z: z.writestr("W1", "text")
    with pytest.raises(ValueError, match="TwoLayerNet.load"): TwoLayerNet(2, 3, 3).load(tmp_path / "net.npz")


def test_missing_and_forbidden_files_of_a_net(tmp_path):
    net = TwoLayerNet(2, 3, 3)
    assert net.load(tmp_path / "none.npz") is False
    with pytest.raises(IsADirectoryError): net.load(tmp_path)


# Pictures

def test_imresize_says_what_it_needs():
    frame = np.zeros((4, 5, 3), np.uint8)
    assert imresize(frame, (2, 3)).shape == (2, 3, 3) and imresize(frame[..., 0], [2, 3]).shape == (2, 3)
    with pytest.raises(ValueError, match="arr needs the shape .* got float64"): imresize(frame / 255, (2, 3))
    with pytest.raises(TypeError, match="size needs"): imresize(frame, 3)
