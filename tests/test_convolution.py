"""Naive convolution under what no reader's page should show: bad input, odd layouts, random shapes."""
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
from cs231n_lit.convolution import check_conv, conv_backward_naive, conv_forward_naive, conv_output_size
from cs231n_lit.gradient_check import eval_numerical_gradient_array, fixture, max_error

TORCH = Path(__file__).parents[1] / "cs231n_lit/data/pages/torch.npz"
few = settings(max_examples=40, deadline=None, derandomize=True)
rng = np.random.default_rng(0)


def layer(x=(2, 3, 6, 5), w=(4, 3, 3, 2), stride=2, pad=1, dtype=float, seed=0):
    "Arguments of a convolution, and an upstream gradient of the right shape."
    draw = np.random.default_rng(seed)
    x, w, b = (draw.normal(size=shape).astype(dtype) for shape in (x, w, w[:1]))
    shape = check_conv("layer", x, w, b, {"stride": stride, "pad": pad})[-1]
    return x, w, b, {"stride": stride, "pad": pad}, draw.normal(size=shape).astype(dtype)


def by_einsum(x, w, b, conv_param):
    "The forward pass in another way: all windows at once."
    S, P = conv_param["stride"], conv_param["pad"]
    x_pad = np.zeros((*x.shape[:2], x.shape[2] + 2 * P, x.shape[3] + 2 * P), x.dtype)
    x_pad[:, :, P : P + x.shape[2], P : P + x.shape[3]] = x
    X = np.lib.stride_tricks.sliding_window_view(x_pad, w.shape[2:], axis=(2, 3))[:, :, ::S, ::S]
    return np.einsum("ncijpq,fcpq->nfij", X, w) + b[:, None, None]


@st.composite
def layers(draw, least_images=0):
    "Random convolutions, small ones: any stride, padding, filter and image that fit."
    small = lambda low, high: draw(st.integers(low, high))
    (HH, WW), S, P = (small(1, 4), small(1, 4)), small(1, 4), small(0, 3)
    H, W = (max(size - 2 * P, 0) + small(0, 4) for size in (HH, WW))
    return layer((small(least_images, 2), C := small(1, 3), H, W), (small(1, 3), C, HH, WW), S, P, seed=small(0, 99))


# The size of the output

@given(size=st.integers(0, 20), window=st.integers(1, 8), stride=st.integers(1, 6), pad=st.integers(0, 4))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_output_size_counts_the_windows(size, window, stride, pad):
    starts = range(-pad, size + pad - window + 1, stride)
    if len(starts): assert conv_output_size(size, window, stride, pad) == len(starts)
    else:
        with pytest.raises(ValueError, match=f"window needs to be at most {size + 2 * pad}"): conv_output_size(size, window, stride, pad)


def test_output_size_defaults_and_type():
    assert conv_output_size(7, 3) == 5
    assert type(conv_output_size(np.int64(7), np.int32(3), np.int8(2), np.uint8(1))) is int


@pytest.mark.parametrize("args, error, words", [
    ((5, 6), ValueError, "conv_output_size: window needs to be at most 5, the input's 5; got 6"),
    ((1, 6, 1, 2), ValueError, "window needs to be at most 5, the input's 1 with padding 2 at both ends; got 6"),
    ((5, 0), ValueError, "window needs to be at least 1; got 0"), ((5, -1), ValueError, "window needs to be at least 1; got -1"),
    ((-1, 1, 1, 3), ValueError, "size needs to be at least 0; got -1"), ((5, 3, 0), ValueError, "stride needs to be at least 1; got 0"),
    ((5, 3, -2), ValueError, "stride needs to be at least 1; got -2"), ((5, 3, 1, -1), ValueError, "pad needs to be at least 0; got -1"),
    ((5.0, 3), TypeError, "size needs a whole number, at least 0; got 5.0"), ((5, "3"), TypeError, "window needs a whole number"),
    ((5, 3, 1.0), TypeError, "stride needs a whole number"), ((5, 3, 1, None), TypeError, "pad needs a whole number, at least 0; got None"),
    ((5, 3, True), TypeError, "stride needs a whole number"), ((5, [3]), TypeError, "window needs a whole number"),
])
def test_output_size_refuses(args, error, words):
    with pytest.raises(error, match=re.escape(words)): conv_output_size(*args)


def test_output_size_names_the_caller():
    with pytest.raises(ValueError, match="my_pool: pool_height needs to be at most 2"): conv_output_size(2, 3, where="my_pool", name="pool_height")
    with pytest.raises(ValueError, match="my_pool: stride"): conv_output_size(2, 3, 0, where="my_pool")
    with pytest.raises(ValueError, match="my_pool: pad"): conv_output_size(2, 3, 1, -1, where="my_pool")
    with pytest.raises(ValueError, match="my_pool: size"): conv_output_size(-2, 3, where="my_pool")


# Right answers

@given(layers())
@few
def test_forward_is_the_sum_over_windows(case):
    *args, dout = case
    out, _ = conv_forward_naive(*args)
    np.testing.assert_allclose(out, by_einsum(*args), rtol=1e-12, atol=1e-12)


@given(layers())
@few
def test_backward_is_the_adjoint(case):
    "dx does not depend on x, nor dw on w, so the identity has to hold for any other x and w."
    x, w, b, conv_param, dout = case
    dx, dw, db = conv_backward_naive(dout, conv_forward_naive(x, w, b, conv_param)[1])
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, b.shape)
    other_x, other_w, other_b = (np.random.default_rng(1).normal(size=a.shape) for a in (x, w, b))
    product = lambda *args: np.sum(by_einsum(*args, conv_param) * dout)
    np.testing.assert_allclose(np.sum(dx * other_x), product(other_x, w, 0 * b), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sum(dw * other_w), product(x, other_w, 0 * b), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sum(db * other_b), product(0 * x, w, other_b), rtol=1e-9, atol=1e-9)


@given(layers(), st.floats(-3, 3))
@few
def test_linear_in_each_argument(case, scale):
    x, w, b, conv_param, dout = case
    f = lambda x, w, b: conv_forward_naive(x, w, b, conv_param)[0]
    np.testing.assert_allclose(f(scale * x, w, b * 0), scale * f(x, w, b * 0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(f(x, w + scale, b), f(x, w, b) + f(x, np.full_like(w, scale), 0 * b), rtol=1e-9, atol=1e-9)
    back = lambda dout: conv_backward_naive(dout, conv_forward_naive(x, w, b, conv_param)[1])
    for once, scaled in zip(back(dout), back(scale * dout)): np.testing.assert_allclose(scaled, scale * once, rtol=1e-9, atol=1e-9)


@given(layers(least_images=2))
@few
def test_images_do_not_know_each_other(case):
    x, w, b, conv_param, dout = case
    out, cache = conv_forward_naive(x, w, b, conv_param)
    turned, turned_cache = conv_forward_naive(x[::-1], w, b, conv_param)
    assert np.array_equal(turned, out[::-1])
    dx, dw, db = conv_backward_naive(dout, cache)
    turned_dx, turned_dw, turned_db = conv_backward_naive(dout[::-1], turned_cache)
    assert np.array_equal(turned_dx, dx[::-1])
    np.testing.assert_allclose(turned_dw, dw, atol=1e-12)
    np.testing.assert_allclose(turned_db, db, atol=1e-12)


@pytest.mark.parametrize("S", [1, 2, 3])
@pytest.mark.parametrize("axis", [2, 3])
def test_moving_the_image_moves_the_output(S, axis):
    x, w, b, *_ = layer((2, 2, 9, 10), (3, 2, 3, 2))
    out, moved = (conv_forward_naive(a, w, b, {"stride": S, "pad": 0})[0] for a in (x, np.roll(x, S, axis)))
    inner = slice(1, None), slice(None, -1)
    cut = lambda a, part: a[(slice(None),) * axis + (part,)]
    np.testing.assert_allclose(cut(moved, inner[0]), cut(out, inner[1]), atol=1e-13)


def test_transposing_images_and_filters_transposes_everything():
    x, w, b, conv_param, dout = layer()
    t = lambda a: a.swapaxes(2, 3)
    out, cache = conv_forward_naive(x, w, b, conv_param)
    out_t, cache_t = conv_forward_naive(t(x), t(w), b, conv_param)
    np.testing.assert_allclose(t(out_t), out, atol=1e-13)
    for a, a_t in zip(conv_backward_naive(dout, cache)[:2], conv_backward_naive(t(dout), cache_t)[:2]): np.testing.assert_allclose(t(a_t), a, atol=1e-13)


def test_padding_is_a_frame_of_zeros():
    x, w, b, _, _ = layer()
    framed = np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)])
    inside, around = (conv_forward_naive(a, w, b, {"stride": 1, "pad": P}) for a, P in ((x, 2), (framed, 0)))
    assert np.array_equal(inside[0], around[0])
    (dx, dw, db), (dx_framed, dw_framed, db_framed) = (conv_backward_naive(inside[0], cache) for _, cache in (inside, around))
    assert np.array_equal(dx, dx_framed[:, :, 2:-2, 2:-2]) and np.array_equal(dw, dw_framed) and np.array_equal(db, db_framed)


def test_numbers_small_enough_to_check_by_eye():
    x = np.array([[[[1, 2, 0], [0, 1, 3]]], [[[0, 0, 1], [2, 0, 0]]]])
    out, cache = conv_forward_naive(x, [[[[1, -1]]]], [10], {"stride": 1, "pad": 0})
    assert out.tolist() == [[[[9, 12], [9, 8]]], [[[10, 9], [12, 10]]]]
    dx, dw, db = conv_backward_naive([[[[1, 0], [2, 3]]], [[[0, 0], [0, 4]]]], cache)
    assert dx.tolist() == [[[[1, -1, 0], [2, 1, -3]]], [[[0, 0, 0], [0, 4, -4]]]]
    assert (dw.tolist(), db.tolist()) == ([[[[4, 13]]]], [10])


@pytest.mark.parametrize("stride, pad, x, w", [(1, 1, (1, 2, 4, 3), (2, 2, 3, 3)), (3, 0, (2, 1, 8, 7), (2, 1, 2, 3)), (2, 2, (1, 1, 3, 4), (2, 1, 4, 2))])
def test_numeric_gradients(stride, pad, x, w):
    x, w, b, conv_param, dout = layer(x, w, stride, pad)
    f = lambda _: conv_forward_naive(x, w, b, conv_param)[0]
    grads = conv_backward_naive(dout, conv_forward_naive(x, w, b, conv_param)[1])
    for a, grad in zip((x, w, b), grads): assert max_error(grad, eval_numerical_gradient_array(f, a, dout)) < 1e-7


@pytest.mark.parametrize("case", ["conv", "conv_s2p1", "conv_nonsquare", "conv_s3p0", "conv_rest", "conv_p2", "conv_1x1"])
@pytest.mark.parametrize("dtype, limit", [(np.float64, 1e-12), (np.float32, 2e-6)])
def test_pytorch_fixtures(case, dtype, limit):
    t = fixture(case, TORCH)
    x, w, b, dout = (a.astype(dtype) for a in (t.x, t.w, t.b, t.dout))
    out, cache = conv_forward_naive(x, w, b, {"stride": t.stride, "pad": t.pad})
    for ours, theirs in zip((out, *conv_backward_naive(dout, cache)), (t.out, t.dx, t.dw, t.db)):
        assert ours.dtype == dtype and max_error(ours, theirs) < limit


@pytest.mark.skipif(not find_spec("torch"), reason="PyTorch is not installed; its stored values are compared above")
@given(layers(least_images=1))
@few
def test_live_pytorch(case):
    import torch
    *arrays, conv_param, dout = case
    assume(arrays[0].size)  # PyTorch refuses images without pixels, even with padding
    x, w, b = (torch.tensor(a, requires_grad=True) for a in arrays)
    out = torch.nn.functional.conv2d(x, w, b, conv_param["stride"], conv_param["pad"])
    out.backward(torch.tensor(dout))
    ours, cache = conv_forward_naive(*arrays, conv_param)
    for a, theirs in zip((ours, *conv_backward_naive(dout, cache)), (out.detach(), x.grad, w.grad, b.grad)):
        np.testing.assert_allclose(a, theirs.numpy(), rtol=1e-9, atol=1e-12)


def test_no_images_no_filters_no_channels():
    x, w, b, conv_param, dout = layer((0, 3, 6, 5))
    out, cache = conv_forward_naive(x, w, b, conv_param)
    dx, dw, db = conv_backward_naive(dout, cache)
    assert out.shape == (0, 4, 3, 3) and dx.shape == x.shape and not dw.any() and not db.any()
    assert conv_forward_naive(np.ones((2, 3, 6, 5)), w[:0], b[:0], conv_param)[0].shape == (2, 0, 3, 3)
    assert conv_forward_naive(np.ones((1, 0, 3, 3)), w[:, :0], b, conv_param)[0][0, :, 0, 0].tolist() == b.tolist()


def test_nan_and_infinity_stay_in_their_windows():
    x, w = np.zeros((1, 1, 3, 4)), np.ones((1, 1, 2, 2))
    x[0, 0, 0, 0], x[0, 0, 2, 3] = np.nan, np.inf
    out, cache = conv_forward_naive(x, w, [0], {"stride": 1, "pad": 0})
    assert np.isnan(out[0, 0, 0, 0]) and out[0, 0, 1, 2] == np.inf and out[0, 0, 0, 1] == out[0, 0, 1, 0] == 0
    dx, dw, db = conv_backward_naive(np.ones_like(out), cache)
    assert np.isfinite(dx).all() and np.isnan(dw[0, 0, 0, 0]) and dw[0, 0, 1, 1] == np.inf and db == [6]


# Types and layouts

@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_type_stays(dtype):
    *args, dout = layer(dtype=dtype)
    out, cache = conv_forward_naive(*args)
    assert {a.dtype for a in (out, *conv_backward_naive(dout, cache))} == {np.dtype(dtype)}


@pytest.mark.parametrize("x, w, b, dout, forward, backward", [
    ("f4", "f8", "f4", "f4", "f8", "f8"), ("f4", "f4", "f8", "f4", "f8", "f8"), ("f8", "f4", "f4", "f4", "f8", "f8"),
    ("f4", "f4", "f4", "f8", "f4", "f8"), ("f4", "i8", "i4", "i2", "f4", "f4"), ("u1", "i8", "?", "i8", "f8", "f8"), ("i8", "f4", "f4", "f4", "f8", "f8"),
])
def test_mixed_types_follow_numpy_and_whole_numbers_follow_x(x, w, b, dout, forward, backward):
    out, cache = conv_forward_naive(np.ones((1, 1, 2, 2), x), np.ones((1, 1, 2, 2), w), np.ones(1, b), {"stride": 1, "pad": 0})
    assert out.dtype == forward and out == 5
    grads = conv_backward_naive(np.full((1, 1, 1, 1), 3, dout), cache)
    assert {g.dtype for g in grads} == {np.dtype(backward)} and [g.sum() for g in grads] == [12, 12, 3]


@pytest.mark.parametrize("layout", layouts.values(), ids=layouts)
def test_layouts_give_the_same_answer(layout):
    x, w, b, conv_param, dout = layer()
    out, cache = conv_forward_naive(x, w, b, conv_param)
    out2, cache2 = conv_forward_naive(layout(x), layout(w), layout(b), conv_param)
    for a, a2 in zip((out, *conv_backward_naive(dout, cache)), (out2, *conv_backward_naive(layout(dout), cache2))):
        assert a2.dtype == a.dtype and a2.dtype.isnative
        np.testing.assert_allclose(a2, a, rtol=1e-12, atol=1e-13)


def test_overlapping_views():
    row = rng.normal(size=40)
    x = np.lib.stride_tricks.sliding_window_view(row, 30).reshape(11, 1, 5, 6)[:2]
    view = np.lib.stride_tricks.as_strided(row, (2, 1, 5, 6), (8, 0, 48, 8))
    w = np.broadcast_to(row[:3], (2, 1, 3, 3))
    dout = np.broadcast_to(1.0, (2, 2, 3, 4))
    (out, cache), (out2, cache2) = (conv_forward_naive(a, f, [0, 1], {"stride": 1, "pad": 0}) for a, f in ((x.copy(), w.copy()), (view, w)))
    assert np.array_equal(out, out2)
    for a, a2 in zip(conv_backward_naive(dout.copy(), cache), conv_backward_naive(dout, cache2)): assert np.array_equal(a, a2)


# Nobody's numbers change

def test_inputs_and_cache_stay_and_backward_repeats():
    x, w, b, conv_param, dout = layer()
    before = copy.deepcopy((x, w, b, conv_param, dout))
    out, cache = conv_forward_naive(x, w, b, conv_param)
    kept = copy.deepcopy(cache)
    first, second = (conv_backward_naive(dout, cache) for _ in range(2))
    same = lambda a, b: all(p == q if isinstance(p, dict) else np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    assert same((x, w, b, conv_param, dout), before) and same(cache, kept) and same(first, second)
    for a in first: a += 1
    assert same(cache, kept) and same(conv_backward_naive(dout, cache), second)


def test_parameters_edited_after_the_forward_pass_do_not_matter():
    x, w, b, conv_param, dout = layer()
    _, cache = conv_forward_naive(x, w, b, conv_param)
    right = conv_backward_naive(dout, cache)
    conv_param.update(stride=1, pad=0)
    assert cache[3] == {"stride": 2, "pad": 1}
    assert all(np.array_equal(a, a2) for a, a2 in zip(conv_backward_naive(dout, cache), right))


def test_cache_holds_what_it_says():
    x, w, b, conv_param, _ = layer()
    cache = conv_forward_naive(x, w, b, MappingProxyType({"pad": np.int8(1), "stride": np.int64(2)}))[1]
    assert cache[0] is x and cache[1] is w and cache[2] is b and cache[3] == conv_param
    assert [type(n) for n in cache[3].values()] == [int, int]


# Bad input: what is wrong is said in words

good = dict(zip(("x", "w", "b", "conv_param"), layer()))
nested, objects = [[[[1.0, 2.0], [3.0]]]], np.array([[[[None]]]])
bad_forward = [
    ("x", np.ones((3, 6, 5)), ValueError, "x needs 4 axes (N, C, H, W) but has 3: x is (3, 6, 5)"),
    ("x", np.ones((1, 2, 3, 6, 5)), ValueError, "x needs 4 axes (N, C, H, W) but has 5"),
    ("x", 3.0, ValueError, "x needs 4 axes (N, C, H, W) but has 0"), ("x", [], ValueError, "x needs 4 axes"),
    ("x", np.ones((2, 4, 6, 5)), ValueError, "w has C = 3 but x has C = 4: x is (2, 4, 6, 5), w is (4, 3, 3, 2)"),
    ("x", np.ones((2, 6, 5, 3)), ValueError, "w has C = 3 but x has C = 6"),
    ("x", np.ones((2, 3, 0, 5)), ValueError, "the height of w needs to be at most 2, the input's 0 with padding 1 at both ends; got 3"),
    ("x", np.ones((2, 3, 6, 5)).astype(complex), TypeError, "x needs real numbers, but its type is complex128"),
    ("x", objects, TypeError, "x needs real numbers, but its type is object"), ("x", None, TypeError, "x needs real numbers"),
    ("x", np.full((2, 3, 6, 5), "a"), TypeError, "x needs real numbers, but its type is <U1"), ("x", "image", TypeError, "x needs real numbers"),
    ("x", np.zeros((2, 3, 6, 5), "M8[s]"), TypeError, "x needs real numbers"), ("x", np.zeros((2, 3, 6, 5), "m8[s]"), TypeError, "x needs real numbers"),
    ("x", np.zeros((2, 3, 6, 5), [("r", float)]), TypeError, "x needs real numbers"), ("x", nested, ValueError, "x is not a regular array"),
    ("x", {"images": 1}, TypeError, "x needs real numbers"),
    ("w", np.ones((4, 3, 3)), ValueError, "w needs 4 axes (F, C, HH, WW) but has 3: w is (4, 3, 3)"),
    ("w", np.ones((4, 3, 3, 2, 1)), ValueError, "w needs 4 axes (F, C, HH, WW) but has 5"), ("w", 1, ValueError, "w needs 4 axes"),
    ("w", np.ones((4, 1, 3, 2)), ValueError, "w has C = 1 but x has C = 3"),
    ("w", np.ones((4, 3, 9, 2)), ValueError, "the height of w needs to be at most 8, the input's 6 with padding 1 at both ends; got 9"),
    ("w", np.ones((4, 3, 3, 8)), ValueError, "the width of w needs to be at most 7, the input's 5 with padding 1 at both ends; got 8"),
    ("w", np.ones((4, 3, 0, 2)), ValueError, "the height of w needs to be at least 1; got 0"),
    ("w", np.ones((4, 3, 3, 0)), ValueError, "the width of w needs to be at least 1; got 0"),
    ("w", np.ones((5, 3, 3, 2)), ValueError, "b has F = 4 but w has F = 5"), ("w", objects, TypeError, "w needs real numbers"),
    ("w", np.ones((4, 3, 3, 2), complex), TypeError, "w needs real numbers"), ("w", None, TypeError, "w needs real numbers"),
    ("w", nested, ValueError, "w is not a regular array"),
    ("b", np.ones(3), ValueError, "b has F = 3 but w has F = 4: w is (4, 3, 3, 2), b is (3,)"), ("b", np.ones((4, 1)), ValueError, "b needs 1 axes (F) but has 2"),
    ("b", 0.0, ValueError, "b needs 1 axes (F) but has 0"), ("b", [], ValueError, "b has F = 0 but w has F = 4"), ("b", None, TypeError, "b needs real numbers"),
    ("b", np.array([None] * 4), TypeError, "b needs real numbers"), ("b", "four", TypeError, "b needs real numbers"), ("b", np.ones(4, complex), TypeError, "b needs real numbers"),
    ("conv_param", None, TypeError, "conv_param needs to be a dictionary; got NoneType"), ("conv_param", (2, 1), TypeError, "conv_param needs to be a dictionary; got tuple"),
    ("conv_param", "stride pad", TypeError, "conv_param needs to be a dictionary; got str"), ("conv_param", 1, TypeError, "conv_param needs to be a dictionary"),
    ("conv_param", {}, ValueError, "conv_param needs the key 'stride'; it has []"), ("conv_param", {"stride": 1}, ValueError, "conv_param needs the key 'pad'; it has ['stride']"),
    ("conv_param", {"pad": 1}, ValueError, "conv_param needs the key 'stride'"), ("conv_param", {"Stride": 1, "pad": 0}, ValueError, "conv_param needs the key 'stride'"),
    ("conv_param", {"stride": 1, "pad": 0, "dilation": 2}, ValueError, "conv_param has the unknown key 'dilation'; known are ['stride', 'pad']"),
    ("conv_param", {"stride": 1, "pad": 0, "padding": 1}, ValueError, "unknown key 'padding'"), ("conv_param", {"stride": 1, "pad": 0, 3: 1}, ValueError, "unknown key 3"),
    ("conv_param", {"stride": 0, "pad": 0}, ValueError, "stride needs to be at least 1; got 0"), ("conv_param", {"stride": -1, "pad": 0}, ValueError, "stride needs to be at least 1; got -1"),
    ("conv_param", {"stride": 1.0, "pad": 0}, TypeError, "stride needs a whole number, at least 1; got 1.0"), ("conv_param", {"stride": "1", "pad": 0}, TypeError, "stride needs a whole number"),
    ("conv_param", {"stride": (1, 1), "pad": 0}, TypeError, "stride needs a whole number"), ("conv_param", {"stride": None, "pad": 0}, TypeError, "stride needs a whole number"),
    ("conv_param", {"stride": True, "pad": 0}, TypeError, "stride needs a whole number"), ("conv_param", {"stride": np.nan, "pad": 0}, TypeError, "stride needs a whole number"),
    ("conv_param", {"stride": 1, "pad": -1}, ValueError, "pad needs to be at least 0; got -1"), ("conv_param", {"stride": 1, "pad": 0.5}, TypeError, "pad needs a whole number, at least 0; got 0.5"),
    ("conv_param", {"stride": 1, "pad": "same"}, TypeError, "pad needs a whole number"), ("conv_param", {"stride": 1, "pad": (1, 0)}, TypeError, "pad needs a whole number"),
    ("conv_param", {"stride": 1, "pad": None}, TypeError, "pad needs a whole number"), ("conv_param", {"stride": 1, "pad": False}, TypeError, "pad needs a whole number"),
]


@pytest.mark.parametrize("name, value, error, words", bad_forward, ids=[f"{n}-{k}" for k, (n, *_) in enumerate(bad_forward)])
def test_forward_refuses(name, value, error, words):
    with pytest.raises(error, match=r"^conv_forward_naive: (.* )?" + re.escape(words)): conv_forward_naive(**{**good, name: value})


x, w, b, param, right = layer()
bad_backward = [
    (np.ones((2, 4, 3, 4)), None, ValueError, "dout needs the output's shape (2, 4, 3, 3) but is (2, 4, 3, 4)"),
    (np.ones((2, 4, 9)), None, ValueError, "dout needs the output's shape"), (np.ones((1, 4, 3, 3)), None, ValueError, "dout needs the output's shape"),
    (np.ones((2, 3, 6, 5)), None, ValueError, "but is (2, 3, 6, 5)"), (1.0, None, ValueError, "but is ()"), (np.ones((2, 4, 3, 3, 1)), None, ValueError, "dout needs the output's shape"),
    (right.astype(complex), None, TypeError, "dout needs real numbers"), (right.astype(object), None, TypeError, "dout needs real numbers"),
    (None, None, TypeError, "dout needs real numbers"), (nested, None, ValueError, "dout is not a regular array"), ("dout", None, TypeError, "dout needs real numbers"),
    (right, (x, w, b), ValueError, "cache needs to be the tuple (x, w, b, conv_param) that the forward pass returned; got a tuple of 3"),
    (right, (x, param), ValueError, "got a tuple of 2"), (right, (), ValueError, "got a tuple of 0"), (right, (x, w, b, param, 1), ValueError, "got a tuple of 5"),
    (right, [x, w, b, param], TypeError, "cache needs to be the tuple (x, w, b, conv_param) that the forward pass returned; got list"),
    (right, x, TypeError, "got ndarray"), (right, param, TypeError, "got dict"), (right, (param, b, w, x), TypeError, "got a tuple whose x is dict"),
    (right, (w, x, b, param), ValueError, "b has F = 4 but w has F = 2"), (right, (x, w, param, b), TypeError, "got a tuple whose b is dict"),
    (right, (x, w, b, {"pool_height": 2, "pool_width": 2, "stride": 2}), ValueError, "conv_param needs the key 'pad'"),
    (right, (x, w, b, b), TypeError, "got a tuple whose conv_param is ndarray"), (right, (x[0], w, b, param), ValueError, "x needs 4 axes"),
    (right, (x[:, :2], w, b, param), ValueError, "w has C = 3 but x has C = 2"), (right, (x, w[:3], b, param), ValueError, "b has F = 4 but w has F = 3"),
    (right, (x[:1], w, b, param), ValueError, "dout needs the output's shape (1, 4, 3, 3) but is (2, 4, 3, 3)"),
    (right, (x, w, b, {"stride": 1, "pad": 1}), ValueError, "dout needs the output's shape (2, 4, 6, 6) but is (2, 4, 3, 3)"),
    (right, (x, w, b, {"stride": 2, "pad": 0}), ValueError, "dout needs the output's shape (2, 4, 2, 2)"), (right, (x[:, :, :0, :0], w, b, {"stride": 2, "pad": 0}), ValueError, "the height of w"),
    (right, ((x, w, b), x), ValueError, "got a tuple of 2"), (right, (None,) * 4, TypeError, "got a tuple whose x is NoneType"),
]


@pytest.mark.parametrize("dout, cache, error, words", bad_backward, ids=range(len(bad_backward)))
def test_backward_refuses(dout, cache, error, words):
    cache = conv_forward_naive(x, w, b, param)[1] if cache is None else cache
    with pytest.raises(error, match=r"^conv_backward_naive: (.* )?" + re.escape(words)): conv_backward_naive(dout, cache)
