"""Naive max pooling under what no reader's page should show: bad input, odd layouts, ties, random shapes."""
import copy
import re
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layouts import layouts
from cs231n_lit.fast_layers import max_pool_backward_fast, max_pool_forward_fast
from cs231n_lit.gradient_check import eval_numerical_gradient_array, fixture, max_error
from cs231n_lit.pooling import check_pool, max_pool_backward_naive, max_pool_forward_naive

TORCH = Path(__file__).parents[1] / "cs231n_lit/data/pages/torch.npz"
few = settings(max_examples=60, deadline=None, derandomize=True)


def pool(height, width, stride):
    return {"pool_height": height, "pool_width": width, "stride": stride}


def layer(shape=(2, 3, 7, 6), height=3, width=2, stride=2, levels=None, dtype=float, seed=0):
    "Arguments of a pooling layer: distinct numbers, or `levels` different ones; and an upstream gradient."
    draw = np.random.default_rng(seed)
    size = int(np.prod(shape))
    x = (draw.permutation(size) - size // 2 if levels is None else draw.integers(0, levels, size)).reshape(shape).astype(dtype)
    param = pool(height, width, stride)
    return x, param, draw.normal(size=check_pool("layer", x, param)[-1]).astype(dtype)


@st.composite
def layers(draw, levels=st.none() | st.integers(1, 3)):
    "Random pooling layers, small ones: windows that touch, overlap or leave gaps, with and without ties."
    small = lambda low, high: draw(st.integers(low, high))
    height, width = small(1, 4), small(1, 4)
    shape = small(0, 2), small(0, 3), height + small(0, 5), width + small(0, 5)
    return layer(shape, height, width, small(1, 4), draw(levels), seed=small(0, 99))


def by_sorting(x, param):
    "Values and places of the maxima in another way: sort each window by falling value, then by place."
    HH, WW, S = param.values()
    X = np.lib.stride_tricks.sliding_window_view(x, (HH, WW), axis=(2, 3))[:, :, ::S, ::S]
    X = X.reshape(*X.shape[:4], HH * WW)
    place = np.argsort(-X, axis=-1, kind="stable")[..., 0]
    n, c, i, j = np.indices(place.shape)
    return np.take_along_axis(X, place[..., None], -1)[..., 0], (n, c, i * S + place // WW, j * S + place % WW)


# Right answers

@given(layers())
@few
def test_forward_and_backward_by_sorting(case):
    x, param, dout = case
    out, cache = max_pool_forward_naive(x, param)
    values, places = by_sorting(x, param)
    assert np.array_equal(out, values)
    dx = np.zeros_like(x)
    np.add.at(dx, places, dout)
    np.testing.assert_allclose(max_pool_backward_naive(dout, cache), dx, atol=1e-13)


@given(layers())
@few
def test_nothing_is_lost_and_nothing_made(case):
    x, param, dout = case
    out, cache = max_pool_forward_naive(x, param)
    dx = max_pool_backward_naive(dout, cache)
    np.testing.assert_allclose(dx.sum(axis=(2, 3)), dout.sum(axis=(2, 3)), atol=1e-10)
    np.testing.assert_allclose((dx * x).sum(axis=(2, 3)), (dout * out).sum(axis=(2, 3)), atol=1e-9)
    assert set(x[dx != 0]) <= set(out.ravel())


@given(layers(), st.floats(0.1, 3), st.floats(-3, 3))
@few
def test_increasing_functions_and_the_gradient_pass_through(case, scale, move):
    "max(a x + m) = a max(x) + m; the winners stay the same; backward is linear in dout."
    x, param, dout = case
    out, cache = max_pool_forward_naive(x, param)
    moved, moved_cache = max_pool_forward_naive(scale * x + move, param)
    np.testing.assert_allclose(moved, scale * out + move, atol=1e-12)
    dx = max_pool_backward_naive(dout, cache)
    assert np.array_equal(max_pool_backward_naive(dout, moved_cache), dx)
    np.testing.assert_allclose(max_pool_backward_naive(scale * dout, cache), scale * dx, atol=1e-12)
    assert not max_pool_backward_naive(0 * dout, cache).any()


@given(layers())
@few
def test_images_and_channels_do_not_know_each_other(case):
    x, param, dout = case
    out, cache = max_pool_forward_naive(x, param)
    turned, turned_cache = max_pool_forward_naive(x[::-1, ::-1], param)
    assert np.array_equal(turned, out[::-1, ::-1])
    assert np.array_equal(max_pool_backward_naive(dout[::-1, ::-1], turned_cache), max_pool_backward_naive(dout, cache)[::-1, ::-1])


def test_moving_the_image_moves_the_output():
    x, param, _ = layer((2, 2, 9, 10), stride=2)
    out, moved = (max_pool_forward_naive(a, param)[0] for a in (x, np.roll(x, (2, 2), (2, 3))))
    assert np.array_equal(moved[:, :, 1:, 1:], out[:, :, :-1, :-1])


def test_transposing_the_image_transposes_everything():
    x, _, dout = layer()
    out, cache = max_pool_forward_naive(x, pool(3, 2, 2))
    out_t, cache_t = max_pool_forward_naive(x.swapaxes(2, 3), pool(2, 3, 2))
    assert np.array_equal(out_t.swapaxes(2, 3), out)
    assert np.array_equal(max_pool_backward_naive(dout.swapaxes(2, 3), cache_t).swapaxes(2, 3), max_pool_backward_naive(dout, cache))


def test_numbers_small_enough_to_check_by_eye():
    x = [[[[1, 5, 2, 0], [3, 4, 9, 9], [7, 0, 1, 8]]]]
    out, cache = max_pool_forward_naive(x, pool(2, 3, 1))
    assert out.tolist() == [[[[9, 9], [9, 9]]]]
    assert max_pool_backward_naive([[[[1, 2], [4, 8]]]], cache).tolist() == [[[[0, 0, 0, 0], [0, 0, 15, 0], [0, 0, 0, 0]]]]


@pytest.mark.parametrize("height, width, stride, winners", [
    (2, 2, 2, [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]), (2, 2, 1, [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]),
    (4, 4, 1, [[1, 0, 0, 0], [0] * 4, [0] * 4, [0] * 4]), (1, 2, 3, [[1, 0, 0, 0], [0] * 4, [0] * 4, [1, 0, 0, 0]]),
])
@pytest.mark.parametrize("value", [0.0, -7.0, np.inf, -np.inf, np.nan])
def test_ties_go_to_the_first_in_reading_order(height, width, stride, winners, value):
    out, cache = max_pool_forward_naive(np.full((1, 1, 4, 4), value), pool(height, width, stride))
    assert np.array_equal(out, np.full_like(out, value), equal_nan=True)
    assert max_pool_backward_naive(np.ones_like(out), cache)[0, 0].tolist() == winners


def test_the_row_comes_before_the_column():
    _, cache = max_pool_forward_naive([[[[0, 1], [1, 0]]]], pool(2, 2, 1))
    assert max_pool_backward_naive([[[[3]]]], cache).tolist() == [[[[0, 3], [0, 0]]]]


def test_nan_wins_and_the_first_nan_is_paid():
    x = np.array([[[[np.inf, 1, 5], [np.nan, np.nan, 2]]]])
    out, cache = max_pool_forward_naive(x, pool(2, 2, 1))
    assert np.isnan(out).all()
    assert max_pool_backward_naive([[[[1, 2]]]], cache).tolist() == [[[[0, 0, 0], [1, 2, 0]]]]
    dx = max_pool_backward_naive([[[[np.nan, np.inf]]]], cache)
    assert np.isnan(dx[0, 0, 1, 0]) and dx[0, 0, 1, 1] == np.inf and dx[0, 0, 0].tolist() == [0, 0, 0]


def test_where_several_nans_meet_pytorch_pays_the_last():
    t = fixture("pool_nan")
    for forward, backward in (max_pool_forward_naive, max_pool_backward_naive), (max_pool_forward_fast, max_pool_backward_fast):
        out, cache = forward(t.x, pool(2, 2, 2))
        assert np.isnan(t.x[0, 0, [0, 1], [0, 1]]).all() and np.isnan(out).all() and np.isnan(t.out).all()
        assert backward(t.dout, cache)[0, 0].tolist() == [[5, 0], [0, 0]] and t.dx[0, 0].tolist() == [[0, 0], [0, 5]]


@pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed; its stored value is compared above")
@pytest.mark.parametrize("window", [[[1, np.nan], [np.nan, 7]], [[np.nan, 1], [2, np.nan]], [[np.nan] * 2] * 2, [[np.nan, 5], [5, 1]], [[5, 5], [1, np.nan]]])
def test_live_pytorch_pays_the_last_nan(window):
    import torch
    x = torch.tensor([[window]], dtype=torch.float64, requires_grad=True)
    torch.nn.functional.max_pool2d(x, 2).sum().backward()
    nans = np.flatnonzero(np.isnan(window))
    _, cache = max_pool_forward_naive(np.array([[window]]), pool(2, 2, 2))
    assert x.grad.numpy().ravel().argmax() == nans[-1] and max_pool_backward_naive(np.ones((1, 1, 1, 1)), cache).argmax() == nans[0]


def test_what_no_window_reaches_gets_nothing():
    x, param, dout = layer((1, 1, 6, 7), 2, 2, 3)
    dx = max_pool_backward_naive(np.ones_like(dout), max_pool_forward_naive(x, param)[1])[0, 0]
    assert not dx[[2, 5]].any() and not dx[:, [2, 5, 6]].any() and dx.sum() == 4


@pytest.mark.parametrize("case", [((2, 2, 6, 6), 2, 2, 2), ((1, 2, 7, 6), 3, 2, 2), ((1, 1, 5, 5), 3, 3, 1), ((1, 1, 8, 7), 2, 2, 3)])
def test_numeric_gradients(case):
    x, param, dout = layer(*case)
    dx = max_pool_backward_naive(dout, max_pool_forward_naive(x, param)[1])
    assert max_error(dx, eval_numerical_gradient_array(lambda x: max_pool_forward_naive(x, param)[0], x, dout)) < 1e-7


@pytest.mark.parametrize("case", ["pool", "pool_overlap", "pool_nonsquare", "pool_ties", "pool_gaps", "pool_rest"])
@pytest.mark.parametrize("dtype, limit", [(np.float64, 1e-13), (np.float32, 1e-6)])
def test_pytorch_fixtures(case, dtype, limit):
    t = fixture(case, TORCH)
    out, cache = max_pool_forward_naive(t.x.astype(dtype), pool(t.pool_height, t.pool_width, t.stride))
    dx = max_pool_backward_naive(t.dout.astype(dtype), cache)
    assert (out.dtype, dx.dtype) == (dtype, dtype) and max_error(out, t.out) < limit and max_error(dx, t.dx) < limit


@pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed; its stored values are compared above")
@given(layers())
@few
def test_live_pytorch(case):
    import torch
    x, param, dout = case
    assume(dout.size)
    theirs = torch.tensor(x, requires_grad=True)
    out = torch.nn.functional.max_pool2d(theirs, (param["pool_height"], param["pool_width"]), param["stride"])
    out.backward(torch.tensor(dout))
    ours, cache = max_pool_forward_naive(x, param)
    assert np.array_equal(ours, out.detach().numpy())
    np.testing.assert_allclose(max_pool_backward_naive(dout, cache), theirs.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0, 4, 4)])
def test_nothing_to_pool(shape):
    out, cache = max_pool_forward_naive(np.ones(shape, np.float32), pool(2, 2, 2))
    dx = max_pool_backward_naive(out, cache)
    assert (out.shape, dx.shape) == ((*shape[:2], 2, 2), shape) and out.dtype == dx.dtype == np.float32


# Types and layouts

@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_type_stays(dtype):
    x, param, dout = layer(dtype=dtype)
    out, cache = max_pool_forward_naive(x, param)
    assert out.dtype == max_pool_backward_naive(dout, cache).dtype == dtype


@pytest.mark.parametrize("x, dout, forward, backward", [("f4", "f8", "f4", "f8"), ("f8", "f4", "f8", "f8"), ("f4", "i8", "f4", "f4"), ("u1", "i8", "f8", "f8"), ("?", "f4", "f8", "f8")])
def test_mixed_types_follow_numpy_and_whole_numbers_follow_x(x, dout, forward, backward):
    out, cache = max_pool_forward_naive(np.ones((1, 1, 2, 2), x), pool(2, 2, 1))
    dx = max_pool_backward_naive(np.full((1, 1, 1, 1), 3, dout), cache)
    assert (out.dtype, dx.dtype) == (forward, backward) and out == 1 and dx.sum() == 3


@pytest.mark.parametrize("layout", layouts.values(), ids=layouts)
@pytest.mark.parametrize("levels", [None, 2])
def test_layouts_give_the_same_answer(layout, levels):
    x, param, dout = layer(levels=levels)
    out, cache = max_pool_forward_naive(x, param)
    out2, cache2 = max_pool_forward_naive(layout(x), param)
    dx, dx2 = max_pool_backward_naive(dout, cache), max_pool_backward_naive(layout(dout), cache2)
    assert np.array_equal(out, out2) and np.array_equal(dx, dx2) and out2.dtype.isnative and dx2.dtype.isnative


def test_overlapping_views():
    row = np.random.default_rng(0).normal(size=40)
    view = np.lib.stride_tricks.as_strided(row, (2, 1, 5, 6), (8, 0, 48, 8))
    dout = np.broadcast_to(2.0, (2, 1, 2, 3))
    (out, cache), (out2, cache2) = (max_pool_forward_naive(a, pool(2, 2, 2)) for a in (view.copy(), view))
    assert np.array_equal(out, out2) and np.array_equal(max_pool_backward_naive(dout.copy(), cache), max_pool_backward_naive(dout, cache2))


# Nobody's numbers change

def test_inputs_and_cache_stay_and_backward_repeats():
    x, param, dout = layer()
    before = copy.deepcopy((x, param, dout))
    out, cache = max_pool_forward_naive(x, param)
    kept = copy.deepcopy(cache)
    first, second = (max_pool_backward_naive(dout, cache) for _ in range(2))
    assert np.array_equal(first, second)
    first += 1
    out += 1
    assert np.array_equal(x, before[0]) and param == before[1] and np.array_equal(dout, before[2])
    assert np.array_equal(cache[0], kept[0]) and cache[1] == kept[1] and np.array_equal(max_pool_backward_naive(dout, cache), second)


def test_parameters_edited_after_the_forward_pass_do_not_matter():
    x, param, dout = layer()
    _, cache = max_pool_forward_naive(x, param)
    param.update(pool_height=1, pool_width=1, stride=1)
    assert cache[1] == pool(3, 2, 2)
    assert max_pool_backward_naive(dout, cache).shape == x.shape


def test_cache_holds_what_it_says():
    x, param, _ = layer()
    cache = max_pool_forward_naive(x, MappingProxyType({k: np.int16(v) for k, v in reversed(param.items())}))[1]
    assert cache[0] is x and cache[1] == param and [type(n) for n in cache[1].values()] == [int] * 3


# Bad input: what is wrong is said in words

x, param, right = layer()
nested, objects = [[[[1.0, 2.0], [3.0]]]], np.array([[[[None]]]])
wrong_numbers = [(key, value, error, words) for key in ("pool_height", "pool_width", "stride") for value, error, words in [
    (0, ValueError, "needs to be at least 1; got 0"), (-2, ValueError, "needs to be at least 1; got -2"), (2.0, TypeError, "needs a whole number, at least 1; got 2.0"),
    ("2", TypeError, "needs a whole number, at least 1; got '2'"), (None, TypeError, "needs a whole number"), ((2, 2), TypeError, "needs a whole number"), (True, TypeError, "needs a whole number"),
    (np.nan, TypeError, "needs a whole number")]]
bad_forward = [
    (x[0], param, ValueError, "x needs 4 axes (N, C, H, W) but has 3: x is (3, 7, 6)"), (x[None], param, ValueError, "x needs 4 axes (N, C, H, W) but has 5"),
    (1.0, param, ValueError, "x needs 4 axes"), ([], param, ValueError, "x needs 4 axes"), (x.astype(complex), param, TypeError, "x needs real numbers, but its type is complex128"),
    (objects, param, TypeError, "x needs real numbers, but its type is object"), (None, param, TypeError, "x needs real numbers"), ("x", param, TypeError, "x needs real numbers"),
    (np.zeros((1, 1, 4, 4), "M8[s]"), param, TypeError, "x needs real numbers"), (nested, param, ValueError, "x is not a regular array"), (param, x, TypeError, "x needs real numbers"),
    (x, pool(8, 2, 2), ValueError, "pool_height needs to be at most 7, the input's 7; got 8"),
    (x, pool(3, 7, 2), ValueError, "pool_width needs to be at most 6, the input's 6; got 7"),
    (x[:, :, :0], param, ValueError, "pool_height needs to be at most 0"), (x[:, :, :, :0], param, ValueError, "pool_width needs to be at most 0"),
    (x, None, TypeError, "pool_param needs to be a dictionary; got NoneType"), (x, (2, 2, 2), TypeError, "pool_param needs to be a dictionary; got tuple"), (x, 2, TypeError, "got int"),
    (x, {}, ValueError, "pool_param needs the key 'pool_height'; it has []"), (x, {"pool_height": 2, "pool_width": 2}, ValueError, "pool_param needs the key 'stride'"),
    (x, {"pool_height": 2, "stride": 2}, ValueError, "needs the key 'pool_width'"), (x, {"pool_width": 2, "stride": 2}, ValueError, "needs the key 'pool_height'"),
    (x, {"stride": 1, "pad": 0}, ValueError, "needs the key 'pool_height'; it has ['stride', 'pad']"), (x, {**param, "pad": 1}, ValueError, "pool_param has the unknown key 'pad'"),
    (x, {**param, "ceil_mode": True}, ValueError, "unknown key 'ceil_mode'"), *[(x, {**param, key: value}, error, f"{key} {words}") for key, value, error, words in wrong_numbers],
]


@pytest.mark.parametrize("images, pool_param, error, words", bad_forward, ids=range(len(bad_forward)))
def test_forward_refuses(images, pool_param, error, words):
    with pytest.raises(error, match=r"^max_pool_forward_naive: (.* )?" + re.escape(words)): max_pool_forward_naive(images, pool_param)


bad_backward = [
    (np.ones((2, 3, 3, 2)), None, ValueError, "dout needs the output's shape (2, 3, 3, 3) but is (2, 3, 3, 2)"), (x, None, ValueError, "but is (2, 3, 7, 6)"),
    (right[0], None, ValueError, "dout needs the output's shape"), (1.0, None, ValueError, "but is ()"), (right[None], None, ValueError, "dout needs the output's shape"),
    (right[:1], None, ValueError, "but is (1, 3, 3, 3)"), (right.astype(complex), None, TypeError, "dout needs real numbers"), (right.astype(object), None, TypeError, "dout needs real numbers"),
    (None, None, TypeError, "dout needs real numbers"), (nested, None, ValueError, "dout is not a regular array"), ("dout", None, TypeError, "dout needs real numbers"),
    (right, (x,), ValueError, "cache needs to be the tuple (x, pool_param) that the forward pass returned; got a tuple of 1"), (right, (), ValueError, "got a tuple of 0"),
    (right, (x, x, x, param), ValueError, "got a tuple of 4"), (right, [x, param], TypeError, "got list"), (right, x, TypeError, "got ndarray"), (right, param, TypeError, "got dict"),
    (right, (param, x), TypeError, "got a tuple whose x is dict"), (right, (x, x), TypeError, "got a tuple whose pool_param is ndarray"), (right, (x, None), TypeError, "got a tuple whose pool_param is NoneType"),
    (right, (x, {"stride": 2, "pad": 1}), ValueError, "needs the key 'pool_height'"), (right, (x[0], param), ValueError, "x needs 4 axes"), (right, (None, None), TypeError, "got a tuple whose x is NoneType"),
    (right, (x, pool(2, 2, 1)), ValueError, "dout needs the output's shape (2, 3, 6, 5) but is (2, 3, 3, 3)"), (right, (x, pool(9, 2, 1)), ValueError, "pool_height needs to be at most 7"),
    (right, (x[:1], param), ValueError, "dout needs the output's shape (1, 3, 3, 3)"), (right, (x, {**param, "stride": 0}), ValueError, "stride needs to be at least 1"),
]


@pytest.mark.parametrize("dout, cache, error, words", bad_backward, ids=range(len(bad_backward)))
def test_backward_refuses(dout, cache, error, words):
    cache = max_pool_forward_naive(x, param)[1] if cache is None else cache
    with pytest.raises(error, match=r"^max_pool_backward_naive: (.* )?" + re.escape(words)): max_pool_backward_naive(dout, cache)
