"""Affine, ReLU, dropout and the losses under what no reader's page should show: bad input, odd layouts, extreme values."""
import copy
import math
import re
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs231n_lit import layers
from cs231n_lit.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array, fixture, judge_gradient, max_error
from cs231n_lit.layers import (affine_backward, affine_forward, dropout_backward, dropout_forward, relu_backward,
                               relu_forward, softmax_loss, svm_loss)

TORCH = Path(__file__).parents[1] / "cs231n_lit/data/pages/torch.npz"
few = settings(max_examples=40, deadline=None, derandomize=True)
TRAIN = {"mode": "train", "p": 0.6, "seed": 7}
TEST = {"mode": "test", "p": 0.6}
ONE = np.ones


def affine_case(N=3, image=(2, 4), M=5, dtype=float, seed=0):
    "x, w, b and an upstream gradient."
    draw, D = np.random.default_rng(seed), math.prod(image)
    return [draw.normal(size=shape).astype(dtype) for shape in ((N, *image), (D, M), (M,), (N, M))]


def scores(N=6, C=4, dtype=float, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(N, C)).astype(dtype), draw.integers(C, size=N)


def every_layer(dtype=float):
    "name: (forward, its arguments, backward, dout), one for each layer; for a loss there is no backward."
    x, w, b, dout = affine_case(dtype=dtype)
    y = np.array([4, 0, 2])
    return {"affine": (affine_forward, (x, w, b), affine_backward, dout), "relu": (relu_forward, (x,), relu_backward, x[::-1].copy()),
            "dropout": (dropout_forward, (x, dict(TRAIN)), dropout_backward, x[::-1].copy()),
            "dropout, test": (dropout_forward, (x, dict(TEST)), dropout_backward, x[::-1].copy()),
            "softmax": (softmax_loss, (dout, y), None, None), "svm": (svm_loss, (dout, y), None, None)}


NAMES = list(every_layer())


def results(case, change=lambda a: a):
    "All arrays a layer gives, with `change` applied to the arrays it gets."
    forward, args, backward, dout = case
    args = [change(a) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args]
    out, rest = forward(*args)
    if backward is None: return [np.asarray(out), rest]
    grads = backward(change(dout), rest)
    return [out, *(grads if isinstance(grads, tuple) else [grads])]


def frozen(tree):
    "The same, with arrays that refuse to be written to and dictionaries that refuse new keys."
    if isinstance(tree, np.ndarray):
        tree = tree.copy()
        tree.flags.writeable = False
        return tree
    if isinstance(tree, tuple): return tuple(map(frozen, tree))
    return MappingProxyType(tree) if isinstance(tree, dict) else tree


def test_public_names():
    assert sorted(layers.__all__) == sorted(["affine_forward", "affine_backward", "relu_forward", "relu_backward", "dropout_forward",
                                             "dropout_backward", "softmax_loss", "svm_loss"])


# Right answers

@given(N=st.integers(0, 4), image=st.lists(st.integers(0, 3), max_size=3).map(tuple), M=st.integers(0, 4), seed=st.integers(0, 99))
@few
def test_affine_is_a_sum_for_each_output(N, image, M, seed):
    x, w, b, dout = affine_case(N, image, M, seed=seed)
    rows = x.reshape(N, math.prod(image))
    out, cache = affine_forward(x, w, b)
    np.testing.assert_allclose(out, np.einsum("nd,dm->nm", rows, w) + b, rtol=1e-12, atol=1e-12)
    dx, dw, db = affine_backward(dout, cache)
    assert (out.shape, dx.shape, dw.shape, db.shape) == ((N, M), x.shape, w.shape, b.shape)
    np.testing.assert_allclose(dx.reshape(rows.shape), np.einsum("nm,dm->nd", dout, w), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dw, np.einsum("nd,nm->dm", rows, dout), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(db, np.einsum("nm->m", dout), rtol=1e-12, atol=1e-12)


def test_affine_by_eye():
    out, cache = affine_forward([[[1, 2], [3, 4]]], [[1, 0], [0, 1], [1, 1], [2, -1]], [10, 20])
    assert out.tolist() == [[22, 21]]
    dx, dw, db = affine_backward([[1, 2]], cache)
    assert (dx.tolist(), dw.tolist(), db.tolist()) == ([[[1, 2], [3, 0]]], [[1, 2], [2, 4], [3, 6], [4, 8]], [1, 2])


def test_relu_by_eye():
    x = np.array([[-np.inf, -2., -5e-324], [-0., 0., 5e-324], [1., np.inf, np.nan]])
    out, cache = relu_forward(x)
    np.testing.assert_array_equal(out, [[0, 0, 0], [0, 0, 5e-324], [1, np.inf, np.nan]])
    np.testing.assert_array_equal(relu_backward(np.arange(1., 10).reshape(3, 3), cache), [[0, 0, 0], [0, 0, 6], [7, 8, 9]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (7, 11)])
def test_relu_gradient_is_a_choice_not_a_product(shape, dtype):
    "Every pair of numbers that a product would mix up: as np.where has it, without a warning, whatever the types."
    odd = np.array([-np.inf, -1, -0., 0, 5e-8, 1, np.inf, np.nan])
    draw = np.random.default_rng(0)
    for other in dtype, np.float64:
        x, dout = draw.choice(odd, shape).astype(dtype), draw.choice(odd, shape).astype(other)
        dx = relu_backward(dout, x)
        np.testing.assert_array_equal(dx, np.where(x <= 0, 0, dout))
        assert isinstance(dx, np.ndarray) and dx.dtype == np.result_type(dout) and dx.shape == shape and not np.shares_memory(dx, dout)


@pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed")
def test_relu_gradient_at_nan_and_infinity_is_pytorchs():
    import torch
    odd = np.array([-np.inf, -1, -0., 0, 5e-324, 1, np.inf, np.nan])
    x, dout = map(np.ravel, np.meshgrid(odd, odd))
    leaf = torch.tensor(x, requires_grad=True)
    torch.relu(leaf).backward(torch.tensor(dout))
    np.testing.assert_array_equal(relu_backward(dout, x), leaf.grad.numpy())


def test_relu_gives_a_closed_unit_no_gradient_at_all():
    "Not even 0 · inf = NaN."
    np.testing.assert_array_equal(relu_backward(np.array([np.inf, np.nan, -np.inf]), np.array([-1., 0, 1])), [0, 0, -np.inf])


@given(p=st.floats(0.05, 1), shape=st.lists(st.integers(0, 4), max_size=3).map(tuple), seed=st.integers(0, 2**32 - 1))
@few
def test_dropout_throws_the_coins_of_the_global_generator(p, shape, seed):
    x = np.random.default_rng(0).normal(size=shape)
    np.random.seed(seed)
    expected = np.random.rand(*shape) < p
    param = {"mode": "train", "p": p, "seed": seed}
    out, cache = dropout_forward(x, param)
    np.testing.assert_allclose(out, np.where(expected, x / p, 0), rtol=1e-14)
    np.testing.assert_allclose(dropout_backward(x, cache), np.where(expected, x / p, 0), rtol=1e-14)
    assert cache[0] is param


def test_dropout_without_a_seed_goes_on_drawing():
    x = ONE((5, 7))
    for param in {"mode": "train", "p": 0.5}, {"mode": "train", "p": 0.5, "seed": None}:
        np.random.seed(3)
        a, b = (dropout_forward(x, param)[0] for _ in range(2))
        np.random.seed(3)
        assert np.array_equal(a, (np.random.rand(5, 7) < 0.5) * 2) and np.array_equal(b, (np.random.rand(5, 7) < 0.5) * 2)
        assert not np.array_equal(a, b)


def test_dropout_seed_zero_is_a_seed():
    x, param = ONE(50), {"mode": "train", "p": 0.5, "seed": 0}
    assert np.array_equal(dropout_forward(x, param)[0], dropout_forward(x, param)[0])


def test_dropout_drops_a_coin_that_equals_p():
    "As many of NumPy's coins lie below p as p says; one that equals p would be one too many."
    np.random.seed(3)
    p = sorted(np.random.rand(9))[4]
    assert np.count_nonzero(dropout_forward(ONE(9), {"mode": "train", "p": p, "seed": 3})[0]) == 4


def test_dropout_at_test_time_draws_nothing_and_gives_a_copy():
    x = ONE((2, 3))
    np.random.seed(0)
    before = np.random.get_state(legacy=False)["state"]["pos"]
    out, cache = dropout_forward(x, {**TEST, "seed": 5})
    dx = dropout_backward(x, cache)
    assert np.random.get_state(legacy=False)["state"]["pos"] == before and cache[1] is None
    assert np.array_equal(out, x) and np.array_equal(dx, x)
    assert not np.shares_memory(out, x) and not np.shares_memory(dx, x)


def test_dropout_keeps_everything_with_p_one():
    x = np.random.default_rng(0).normal(size=(30, 30))
    for p in 1, 1.0, np.float32(1): assert np.array_equal(dropout_forward(x, {"mode": "train", "p": p})[0], x)


def test_dropout_changing_the_dictionary_later_does_not_matter():
    x, param = ONE((4, 4)), dict(TRAIN)
    out, cache = dropout_forward(x, param)
    param.update(mode="test", p=0.1)
    assert np.array_equal(dropout_backward(x, cache), out)


def softmax_reference(x, y):
    total = 0
    dx = np.zeros_like(x)
    for n, row in enumerate(x.tolist()):
        largest = max(row)
        log_sum = largest + math.log(math.fsum(math.exp(v - largest) for v in row))
        total += log_sum - row[y[n]]
        dx[n] = [math.exp(v - log_sum) - (k == y[n]) for k, v in enumerate(row)]
    return total / len(x), dx / len(x)


def svm_reference(x, y):
    total, dx = 0, np.zeros_like(x)
    for n, k in np.ndindex(x.shape):
        if k != y[n] and (margin := x[n, k] - x[n, y[n]] + 1) > 0:
            total += margin
            dx[n, k] += 1
            dx[n, y[n]] -= 1
    return total / len(x), dx / len(x)


LOSSES = [(softmax_loss, softmax_reference), (svm_loss, svm_reference)]


@pytest.mark.parametrize("loss_function, reference", LOSSES)
@given(N=st.integers(1, 5), C=st.integers(1, 5), scale=st.sampled_from([1e-3, 1, 30, 1e4]), seed=st.integers(0, 99))
@few
def test_losses_against_loops(loss_function, reference, N, C, scale, seed):
    x, y = scores(N, C, seed=seed)
    (loss, dx), (expected, expected_dx) = loss_function(x * scale, y), reference(x * scale, y)
    assert type(loss) is float and loss >= 0
    np.testing.assert_allclose(loss, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss_function, _", LOSSES)
@given(shift=st.floats(-1e3, 1e3), seed=st.integers(0, 99))
@few
def test_only_differences_of_scores_matter(loss_function, _, shift, seed):
    x, y = scores(seed=seed)
    (loss, dx), (moved, moved_dx) = loss_function(x, y), loss_function(x + shift, y)
    np.testing.assert_allclose(moved, loss, rtol=1e-10)
    np.testing.assert_allclose(moved_dx, dx, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-15)


def test_svm_by_eye():
    loss, dx = svm_loss(np.array([[1., 3, 0], [5, 0, 4]]), [0, 0])  # margins 3 and 0 (at the corner), 0 (beyond) and 0 (at the corner)
    assert loss == 1.5 and dx.tolist() == [[-0.5, 0.5, 0], [0, 0, 0]]
    assert not np.signbit(dx[1]).any()


def test_one_class_cannot_be_missed():
    for loss_function in softmax_loss, svm_loss:
        loss, dx = loss_function(np.array([[3.], [-2]]), [0, 0])
        assert loss == 0 and dx.tolist() == [[0], [0]]


@pytest.mark.parametrize("x, loss, dx", [
    ([[1e308, -7e307]], 0, [[0, 0]]), ([[0, 1e308]], 1e308, [[-1, 1]]), ([[-1e5, -1e5]], math.log(2), [[-.5, .5]]), ([[800, 0]], 0, [[0, 0]]),
    ([[-800, 0]], 800, [[-1, 1]]), ([[0, -np.inf]], 0, [[0, 0]]), ([[5e-324, 0]], math.log(2), [[-.5, .5]])])
def test_softmax_with_extreme_scores(x, loss, dx):
    ours, our_dx = softmax_loss(np.array(x, float), [0])
    np.testing.assert_allclose(ours, loss, rtol=1e-15)
    np.testing.assert_allclose(our_dx, dx, atol=1e-15)


def test_softmax_in_float32_survives_large_scores():
    loss, dx = softmax_loss(np.array([[200, 0], [0, 200]], np.float32), [1, 1])
    assert loss == 100 and dx.tolist() == [[.5, -.5], [0, 0]]


@pytest.mark.parametrize("loss_function", [softmax_loss, svm_loss])
def test_nan_scores_make_a_nan_loss(loss_function):
    x, y = scores()
    x[2, 1] = np.nan
    assert math.isnan(loss_function(x, y)[0])


# Numeric gradients and PyTorch

@pytest.mark.parametrize("seed", range(3))
def test_numeric_gradients(seed):
    x, w, b, dout = affine_case(seed=seed)
    for a, grad in zip((x, w, b), affine_backward(dout, affine_forward(x, w, b)[1])):
        assert max_error(grad, eval_numerical_gradient_array(lambda _: affine_forward(x, w, b)[0], a, dout)) < 1e-7
    dout = x[::-1].copy()
    for f, back in (lambda x: relu_forward(x), relu_backward), (lambda x: dropout_forward(x, TRAIN), dropout_backward):
        assert max_error(back(dout, f(x)[1]), eval_numerical_gradient_array(lambda x: f(x)[0], x, dout)) < 1e-7
    x, y = scores(seed=seed)
    for f in softmax_loss, svm_loss:
        assert max_error(f(x, y)[1], eval_numerical_gradient(lambda x: f(x, y)[0], x, verbose=False)) < 1e-7


def test_hinge_corners_are_corners():
    x, y = np.array([[1., 0, 0.5]]), [0]  # the first margin is exactly 0
    assert judge_gradient(lambda x: svm_loss(x, y)[0], x, svm_loss(x, y)[1]).tolist() == [["kink", "kink", "right"]]


@pytest.mark.parametrize("dtype, limit", [(np.float64, 1e-13), (np.float32, 2e-6)])
def test_pytorch_fixtures(dtype, limit):
    def same(ours, theirs):
        for a, b in zip(ours, theirs): assert a.dtype == dtype and max_error(a, b) < limit
    cast = lambda t: type(t)(**{k: v.astype(dtype) if getattr(v, "dtype", None) == float else v for k, v in vars(t).items()})
    t = cast(fixture("affine", TORCH))
    out, cache = affine_forward(t.x, t.w, t.b)
    same([out, *affine_backward(t.dout, cache)], [t.out, t.dx, t.dw, t.db])
    for case in ["relu"] + ["relu_kink"] * (dtype == np.float64):  # 1e-300 is 0 in float32
        t = cast(fixture(case, TORCH))
        same([relu_forward(t.x)[0], relu_backward(t.dout, t.x)], [t.out, t.dx])
    t = cast(fixture("dropout", TORCH))
    same([dropout_backward(t.dout, (TRAIN, (t.keep / t.p).astype(dtype)))], [t.dx])
    for case, loss_function in ("softmax", softmax_loss), ("softmax_huge", softmax_loss), ("svm", svm_loss):
        t = cast(fixture(case, TORCH))
        loss, dx = loss_function(t.x, t.y)
        same([dx], [t.dx])
        assert abs(loss - t.loss) <= limit * t.loss


@pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed; its stored values are compared above")
def test_live_pytorch():
    import torch
    import torch.nn.functional as F
    for seed in range(5):
        x, y = scores(seed=seed)
        for ours, theirs in (softmax_loss, F.cross_entropy), (svm_loss, lambda x, y: F.multi_margin_loss(x, y) * x.shape[1]):
            leaf = torch.tensor(x, requires_grad=True)
            loss = theirs(leaf, torch.tensor(y))
            loss.backward()
            np.testing.assert_allclose(ours(x, y)[0], loss.item(), rtol=1e-12)
            np.testing.assert_allclose(ours(x, y)[1], leaf.grad.numpy(), atol=1e-14)


# Types and layouts

@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_type_of_the_numbers_stays(name, dtype):
    got, expected = results(every_layer(dtype)[name]), results(every_layer()[name])
    for a, b in zip(got, expected):
        if a.ndim: assert a.dtype == dtype and a.shape == b.shape
        np.testing.assert_allclose(np.asarray(a, float), b, rtol=0.02, atol=0.02)


def strided(a):
    big = np.full([2 * n + 1 for n in a.shape], np.nan, a.dtype)
    view = big[tuple(slice(1, None, 2) for _ in a.shape)]
    view[...] = a
    return view


LAYOUTS = {"Fortran order": np.asfortranarray, "strided": strided, "reversed": lambda a: a[::-1].copy()[::-1], "read-only": frozen,
           "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()), "a list": lambda a: a.tolist(),
           "unaligned": lambda a: np.frombuffer(b"0" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
           "a subclass": lambda a: a.view(type("Sub", (np.ndarray,), {})), "memory-mapped or overlapping": lambda a: a.copy()[...]}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_does_not_matter(name, layout):
    for a, b in zip(results(every_layer()[name], LAYOUTS[layout]), results(every_layer()[name])):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)
        assert a.dtype == b.dtype and a.dtype.isnative and type(a) is np.ndarray


@pytest.mark.parametrize("name", NAMES)
def test_one_row_seen_many_times(name):
    "Broadcast views, whose rows are one and the same memory."
    repeat = lambda a: np.broadcast_to(a[:1], a.shape)
    for a, b in zip(results(every_layer()[name], repeat), results(every_layer()[name], lambda a: repeat(a).copy())):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64, bool])
def test_integers_are_numbers(kind):
    x = np.array([[1, 0, 1], [0, 1, 1]], kind)
    w, b = np.array([[1], [1], [0]], kind), np.array([1], kind)
    out, cache = affine_forward(x, w, b)
    assert out.dtype == float and out.tolist() == [[2], [2]]
    assert [a.tolist() for a in affine_backward(ONE((2, 1), kind), cache)] == [[[1, 1, 0]] * 2, [[1], [1], [2]], [2]]
    assert relu_forward(x)[0].dtype == float and relu_backward(x, relu_forward(x)[1]).tolist() == x.tolist()
    assert dropout_forward(x, TRAIN)[0].dtype == float and dropout_forward(x, TEST)[0].dtype == float
    assert softmax_loss(x, [0, 1])[1].dtype == float and svm_loss(x, np.array([0, 1], kind) if kind is not bool else [0, 1])[0] == 1


def test_integers_beside_float32_become_float32():
    x = ONE((2, 3), np.float32)
    out, cache = affine_forward(x, ONE((3, 2), int), [1, 2])
    assert {a.dtype for a in (out, *affine_backward(ONE((2, 2), int), cache))} == {np.dtype(np.float32)}
    assert relu_backward(ONE((2, 3), int), x).dtype == np.float32
    assert dropout_backward(ONE((2, 3), int), dropout_forward(x, TRAIN)[1]).dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_empty_batches(name):
    forward, args, backward, dout = every_layer()[name]
    if backward is None:
        with pytest.raises(ValueError, match=re.escape(f"{forward.__name__}: x needs at least one row, as the mean loss of no images is undefined: x is (0, 5)")):
            forward(args[0][:0], args[1][:0])
        return
    out, cache = forward(args[0][:0], *args[1:])
    grads = backward(dout[:0], cache)
    grads = grads if isinstance(grads, tuple) else (grads,)
    assert len(out) == 0 and grads[0].shape == args[0][:0].shape
    assert all(a.shape == b.shape and not a.any() for a, b in zip(grads[1:], args[1:]))


@pytest.mark.parametrize("f, x", [(relu_forward, 3.), (lambda x: dropout_forward(x, {"mode": "train", "p": 1}), 3.), (lambda x: dropout_forward(x, TEST), 3.)])
def test_single_numbers(f, x):
    out, _ = f(x)
    assert np.shape(out) == () and out == 3


# What must not change

@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_caches_stay_and_backward_repeats(name):
    forward, args, backward, dout = every_layer()[name]
    before = copy.deepcopy(args)
    out, cache = forward(*frozen(args))
    np.testing.assert_equal(forward(*args), (out, cache))
    np.testing.assert_equal(args, before)
    if backward is None: return
    once, twice = backward(frozen(dout), frozen(cache)), backward(dout, cache)
    np.testing.assert_equal(once, twice)
    np.testing.assert_equal(backward(dout, forward(*args)[1]), once)
    np.testing.assert_equal(args, before)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_arrays_of_their_own(name):
    forward, args, backward, dout = every_layer()[name]
    out, cache = forward(*args)
    if backward is None: new, old = [cache], args[:1]
    else: new, old = [out, *(g if isinstance(g := backward(dout, cache), tuple) else (g,))], [dout, *(a for a in args if isinstance(a, np.ndarray))]
    for a in new:
        assert not any(np.shares_memory(a, b) for b in old)


# Bad input: what is called, the error, and words that have to be in it

x, w, b, dout = affine_case()
S, Y = scores()
C = affine_forward(x, w, b)[1]
complex_x, text, objects = x * 1j, np.full(x.shape, "a"), x.astype(object)
drop = lambda **changes: {"mode": "train", "p": 0.5} | changes
BAD = [
    # affine_forward
    (lambda: affine_forward(np.float64(3), w, b), ValueError, "affine_forward: x needs at least 1 axes (N) but has 0: x is ()"),
    (lambda: affine_forward(x[:, :1], w, b), ValueError, "affine_forward: w has D = 8 but x has D = 4: x is (3, 1, 4), w is (8, 5)"),
    (lambda: affine_forward(x, w.T, b), ValueError, "affine_forward: w has D = 5 but x has D = 8"),
    (lambda: affine_forward(x, w[:, :4], b), ValueError, "affine_forward: b has M = 5 but w has M = 4: w is (8, 4), b is (5,)"),
    (lambda: affine_forward(x, w, b[None]), ValueError, "affine_forward: b needs 1 axes (M) but has 2: b is (1, 5)"),
    (lambda: affine_forward(x, w, 0.), ValueError, "affine_forward: b needs 1 axes (M) but has 0"),
    (lambda: affine_forward(x, w[0], b), ValueError, "affine_forward: w needs 2 axes (D, M) but has 1: w is (5,)"),
    (lambda: affine_forward(x, w[None], b), ValueError, "affine_forward: w needs 2 axes (D, M) but has 3"),
    (lambda: affine_forward(complex_x, w, b), TypeError, "affine_forward: x needs real numbers, but its type is complex128"),
    (lambda: affine_forward(text, w, b), TypeError, "affine_forward: x needs real numbers"),
    (lambda: affine_forward(objects, w, b), TypeError, "affine_forward: x needs real numbers, but its type is object"),
    (lambda: affine_forward(x, w * 1j, b), TypeError, "affine_forward: w needs real numbers"),
    (lambda: affine_forward(x, w, b * 1j), TypeError, "affine_forward: b needs real numbers"),
    (lambda: affine_forward(None, w, b), TypeError, "affine_forward: x needs real numbers"),
    (lambda: affine_forward([[1, 2], [3]], w, b), ValueError, "affine_forward: x is not a regular array"),
    # affine_backward
    (lambda: affine_backward(dout.T, C), ValueError, "affine_backward: dout needs the output's shape (3, 5) but is (5, 3)"),
    (lambda: affine_backward(dout[:1], C), ValueError, "affine_backward: dout needs the output's shape (3, 5) but is (1, 5)"),
    (lambda: affine_backward(dout[0], C), ValueError, "affine_backward: dout needs the output's shape (3, 5) but is (5,)"),
    (lambda: affine_backward(1., C), ValueError, "affine_backward: dout needs the output's shape (3, 5) but is ()"),
    (lambda: affine_backward(dout * 1j, C), TypeError, "affine_backward: dout needs real numbers"),
    (lambda: affine_backward(dout, C[:2]), ValueError, "affine_backward: cache needs to be the tuple (x, w, b) that the forward pass returned; got a tuple of 2"),
    (lambda: affine_backward(dout, (*C, {})), ValueError, "got a tuple of 4"),
    (lambda: affine_backward(dout, x), TypeError, "affine_backward: cache needs to be the tuple (x, w, b) that the forward pass returned; got ndarray"),
    (lambda: affine_backward(dout, list(C)), TypeError, "got list"),
    (lambda: affine_backward(dout, None), TypeError, "got NoneType"),
    (lambda: affine_backward(dout, (w, x, b)), ValueError, "affine_backward: w needs 2 axes (D, M) but has 3"),
    (lambda: affine_backward(dout, (x, w[1:], b)), ValueError, "affine_backward: w has D = 7 but x has D = 8"),
    (lambda: affine_backward(dout, (x, w, b[1:])), ValueError, "affine_backward: b has M = 4 but w has M = 5"),
    (lambda: affine_backward(dout, (x[0, 0, 0], w, b)), TypeError, "got a tuple whose x is float64"),
    (lambda: affine_backward(dout, (x * 1j, w, b)), TypeError, "affine_backward: x needs real numbers"),
    (lambda: affine_backward(dout, (x, w * 1j, b)), TypeError, "affine_backward: w needs real numbers"),
    (lambda: affine_backward(dout, (x, w, b * 1j)), TypeError, "affine_backward: b needs real numbers"),
    (lambda: affine_backward(dout, (x, w, {"stride": 1})), TypeError, "got a tuple whose b is dict"),
    # relu
    (lambda: relu_forward(complex_x), TypeError, "relu_forward: x needs real numbers"),
    (lambda: relu_forward(text), TypeError, "relu_forward: x needs real numbers"),
    (lambda: relu_forward(None), TypeError, "relu_forward: x needs real numbers"),
    (lambda: relu_forward([[1], [1, 2]]), ValueError, "relu_forward: x is not a regular array"),
    (lambda: relu_backward(dout, dout.T), ValueError, "relu_backward: dout needs the output's shape (5, 3) but is (3, 5)"),
    (lambda: relu_backward(1., dout), ValueError, "relu_backward: dout needs the output's shape (3, 5) but is ()"),
    (lambda: relu_backward(dout[:, :1], dout), ValueError, "relu_backward: dout needs the output's shape (3, 5) but is (3, 1)"),
    (lambda: relu_backward(dout, C), ValueError, "relu_backward: cache is not a regular array"),
    (lambda: relu_backward(dout, None), TypeError, "relu_backward: cache needs real numbers"),
    (lambda: relu_backward(text, x), TypeError, "relu_backward: dout needs real numbers"),
    # dropout_forward
    (lambda: dropout_forward(complex_x, drop()), TypeError, "dropout_forward: x needs real numbers"),
    (lambda: dropout_forward(objects, drop()), TypeError, "dropout_forward: x needs real numbers"),
    (lambda: dropout_forward(x, 0.5), TypeError, "dropout_forward: dropout_param needs to be a dictionary; got float"),
    (lambda: dropout_forward(x, None), TypeError, "dropout_forward: dropout_param needs to be a dictionary; got NoneType"),
    (lambda: dropout_forward(x, {}), ValueError, "dropout_forward: dropout_param needs the key 'mode'; it has []"),
    (lambda: dropout_forward(x, {"mode": "train"}), ValueError, "dropout_forward: dropout_param needs the key 'p'; it has ['mode']"),
    (lambda: dropout_forward(x, {"p": 0.5}), ValueError, "dropout_forward: dropout_param needs the key 'mode'; it has ['p']"),
    (lambda: dropout_forward(x, drop(sede=3)), ValueError, "dropout_forward: dropout_param has the unknown key 'sede'; known are ['mode', 'p', 'seed']"),
    (lambda: dropout_forward(x, drop(p=0)), ValueError, "dropout_forward: p needs a number above 0 and at most 1; got 0"),
    (lambda: dropout_forward(x, drop(p=0, mode="test")), ValueError, "dropout_forward: p needs a number above 0 and at most 1; got 0"),
    (lambda: dropout_forward(x, drop(p=-0.5)), ValueError, "dropout_forward: p needs a number above 0 and at most 1; got -0.5"),
    (lambda: dropout_forward(x, drop(p=1.5)), ValueError, "dropout_forward: p needs a number above 0 and at most 1; got 1.5"),
    (lambda: dropout_forward(x, drop(p=np.nan)), ValueError, "dropout_forward: p needs a number above 0 and at most 1; got nan"),
    (lambda: dropout_forward(x, drop(p=np.inf)), ValueError, "dropout_forward: p needs a number above 0 and at most 1; got inf"),
    (lambda: dropout_forward(x, drop(p="0.5")), TypeError, "dropout_forward: p needs a number above 0 and at most 1; got '0.5'"),
    (lambda: dropout_forward(x, drop(p=None)), TypeError, "dropout_forward: p needs a number"),
    (lambda: dropout_forward(x, drop(p=True)), TypeError, "dropout_forward: p needs a number"),
    (lambda: dropout_forward(x, drop(p=[0.5])), TypeError, "dropout_forward: p needs a number"),
    (lambda: dropout_forward(x, drop(mode="Train")), ValueError, "dropout_forward: mode needs to be one of 'train', 'test'; got 'Train'"),
    (lambda: dropout_forward(x, drop(mode=None)), ValueError, "dropout_forward: mode needs to be one of 'train', 'test'; got None"),
    (lambda: dropout_forward(x, drop(mode=x)), ValueError, "dropout_forward: mode needs to be one of 'train', 'test'"),
    (lambda: dropout_forward(x, drop(seed=-1)), ValueError, "dropout_forward: seed needs to be at least 0; got -1"),
    (lambda: dropout_forward(x, drop(seed=2**32)), ValueError, "Seed must be between 0 and 2**32 - 1"),
    (lambda: dropout_forward(x, drop(seed=1.5)), TypeError, "dropout_forward: seed needs a whole number, at least 0; got 1.5"),
    (lambda: dropout_forward(x, drop(seed="231")), TypeError, "dropout_forward: seed needs a whole number, at least 0; got '231'"),
    (lambda: dropout_forward(x, drop(seed=True)), TypeError, "dropout_forward: seed needs a whole number"),
    # dropout_backward
    (lambda: dropout_backward(x, (TRAIN, x[:1])), ValueError, "dropout_backward: dout needs the output's shape (1, 2, 4) but is (3, 2, 4)"),
    (lambda: dropout_backward(x[:1], (TRAIN, x)), ValueError, "dropout_backward: dout needs the output's shape (3, 2, 4) but is (1, 2, 4)"),
    (lambda: dropout_backward(1., (TRAIN, x)), ValueError, "dropout_backward: dout needs the output's shape (3, 2, 4) but is ()"),
    (lambda: dropout_backward(text, (TRAIN, x)), TypeError, "dropout_backward: dout needs real numbers"),
    (lambda: dropout_backward(text, (TEST, None)), TypeError, "dropout_backward: dout needs real numbers"),
    (lambda: dropout_backward(x, (TRAIN, text)), TypeError, "dropout_backward: mask needs real numbers"),
    (lambda: dropout_backward(x, C), ValueError, "dropout_backward: cache needs to be the tuple (dropout_param, mask) that the forward pass returned; got a tuple of 3"),
    (lambda: dropout_backward(x, x), TypeError, "dropout_backward: cache needs to be the tuple (dropout_param, mask) that the forward pass returned; got ndarray"),
    (lambda: dropout_backward(x, None), TypeError, "got NoneType"),
]
for f in softmax_loss, svm_loss:
    BAD += [(lambda f=f, args=args: f(*args), error, f"{f.__name__}: {words}") for args, error, words in [
        ((S[0], Y), ValueError, "x needs 2 axes (N, C) but has 1: x is (4,)"), ((S[None], Y), ValueError, "x needs 2 axes (N, C) but has 3"),
        ((3., 0), ValueError, "x needs 2 axes (N, C) but has 0"), ((S[:0], Y[:0]), ValueError, "x needs at least one row"),
        ((np.ones((0, 0)), []), ValueError, "x needs at least one row"), ((S[:, :0], Y), ValueError, "y needs labels from 0 to -1"),
        ((S, Y[:5]), ValueError, "y needs one label a row: shape (6,) but is (5,)"), ((S, Y[:, None]), ValueError, "y needs one label a row: shape (6,) but is (6, 1)"),
        ((S, 0), ValueError, "y needs one label a row: shape (6,) but is ()"), ((S, None), TypeError, "y needs whole numbers as labels"),
        ((S, Y.astype(float)), TypeError, "y needs whole numbers as labels, but its type is float64"), ((S, Y > 1), TypeError, "y needs whole numbers"),
        ((S, list("012301")), TypeError, "y needs whole numbers"), ((S, Y.astype(object)), TypeError, "y needs whole numbers as labels, but its type is object"),
        ((S, Y * 0 + 4), ValueError, "y needs labels from 0 to 3, the scores' columns; got 4 to 4"),
        ((S, [0, 1, 2, 3, 0, -1]), ValueError, "y needs labels from 0 to 3, the scores' columns; got -1 to 3"),
        ((S, np.eye(4)[Y].astype(int)), ValueError, "y needs one label a row: shape (6,) but is (6, 4)"),
        ((S * 1j, Y), TypeError, "x needs real numbers"), ((S.astype(object), Y), TypeError, "x needs real numbers"), ((None, Y), TypeError, "x needs real numbers"),
        ((S.astype(str), Y), TypeError, "x needs real numbers"), (([[1, 2], [3]], [0, 0]), ValueError, "x is not a regular array")]]


@pytest.mark.parametrize("call, error, words", BAD, ids=[f"{k}: {words[:60]}" for k, (_, _, words) in enumerate(BAD)])
def test_refuses(call, error, words):
    with pytest.raises(error, match=re.escape(words)): call()


def test_labels_of_any_whole_type():
    for loss_function in softmax_loss, svm_loss:
        expected = loss_function(S, Y)
        for labels in Y.astype(np.uint8), Y.astype(np.int8), Y.tolist(), tuple(Y), Y.astype(">i4"), Y.astype(np.uint64), frozen(Y):
            np.testing.assert_equal(loss_function(S, labels), expected)


def test_a_refused_dropout_leaves_the_generator_alone():
    np.random.seed(1)
    expected = np.random.rand()
    np.random.seed(1)
    with pytest.raises(ValueError): dropout_forward(x, drop(p=2, seed=5))
    assert np.random.rand() == expected
