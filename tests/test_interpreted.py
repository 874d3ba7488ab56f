"""The kernels' sources run by Python instead of a compiler, on small layers: the same answers, with vector registers of each width."""
import sys

import numpy as np
import pytest

import cs231n_lit.kernels.conv as conv_kernels
import cs231n_lit.kernels.layers as layer_kernels
import cs231n_lit.kernels.tile as tile
from cs231n_lit import optim
from cs231n_lit.convolution import conv_backward_naive, conv_forward_naive
from cs231n_lit.layers import relu_backward
from cs231n_lit.pooling import max_pool_backward_naive, max_pool_forward_naive
from cs231n_lit.spatial_norm import (spatial_batchnorm_backward, spatial_batchnorm_forward, spatial_groupnorm_backward,
                                     spatial_groupnorm_forward)

DTYPES = {np.float32: 1e-5, np.float64: 1e-12}  # and how much of the largest number an error may be

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")  # from what lies in memory beyond the last row; nobody uses it


def draw(*shapes, dtype=float):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def same(ours, theirs, limit):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and abs(a - b).max() <= limit * abs(b).max()


@pytest.fixture(params=[(16, np.float64), (32, np.float32), (64, np.float32)], ids=["4 numbers", "8 numbers", "16 numbers"])
def dtype(request, monkeypatch):
    "A type of number, and kernels that plan for registers of so many of them."
    def forget():
        for name in [name for name in sys.modules if name.startswith("cs231n_lit.kernels.")]:
            for thing in vars(sys.modules[name]).values(): getattr(thing, "cache_clear", int)()
    forget()
    monkeypatch.setattr(tile, "vector_bytes", lambda: request.param[0])
    yield request.param[1]
    forget()


@pytest.mark.parametrize("way, x_shape, w_shape, S, P", [
    ("windows", (3, 2, 6, 7), (9, 2, 3, 2), 2, 1), ("windows", (2, 3, 5, 4), (2, 3, 2, 3), 1, 2), ("windows", (1, 25, 2, 2), (64, 25, 2, 2), 1, 0),
    ("windows", (1, 1, 9, 8), (6, 1, 2, 2), 3, 0),
    ("strips", (1, 2, 6, 20), (7, 2, 3, 3), 1, 1), ("strips", (1, 1, 5, 17), (3, 1, 3, 2), 2, 1), ("four rows", (1, 4, 5, 10), (6, 4, 5, 5), 1, 2), ("four rows", (1, 2, 10, 16), (5, 2, 7, 8), 1, 0), ("pointwise", (2, 7, 5, 4), (18, 7, 1, 1), 1, 0),
    ("winograd", (3, 3, 5, 5), (5, 3, 3, 3), 1, 1), ("winograd", (1, 9, 4, 4), (18, 9, 3, 3), 1, 0)])
def test_convolution(way, x_shape, w_shape, S, P, dtype):
    assert conv_kernels.WAYS[way].supports(x_shape, w_shape, S, P)
    x, w, b = draw(x_shape, w_shape, w_shape[0], dtype=dtype)
    out, cache = conv_forward_naive(x, w, b, {"stride": S, "pad": P})
    dout, = draw(out.shape, dtype=dtype)
    ours = conv_kernels.conv_forward(x, w, b, S, P, way=way), *conv_kernels.conv_backward(dout, x, w, S, P, threads=2, way=way)
    same(ours, [out, *conv_backward_naive(dout, cache)], DTYPES[dtype])
    assert conv_kernels.conv_backward(dout, x, w, S, P, need_dx=False)[0] is None


def test_affine(dtype):
    x, w, b, dout = draw((8, 21), (21, 9), 9, (8, 9), dtype=dtype)
    same([conv_kernels.affine_forward(x, w, b, conv_kernels.in_turn, 1), *conv_kernels.affine_backward(dout, x, w, conv_kernels.in_turn, 2)], [x @ w + b, dout @ w.T, x.T @ dout], DTYPES[dtype])


def test_winograd_leaves_what_is_not_finite_to_the_other_ways():
    x, w, b, dout = draw((1, 2, 4, 4), (3, 2, 3, 3), 3, (1, 3, 4, 4))
    x[0, 0, 1, 1] = np.inf
    out, cache = conv_forward_naive(x, w, b, {"stride": 1, "pad": 1})
    for a, e in zip([conv_kernels.conv_forward(x, w, b, 1, 1, way="winograd"), *conv_kernels.conv_backward(dout, x, w, 1, 1, way="winograd")], [out, *conv_backward_naive(dout, cache)]):
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-12)


def test_convolution_of_no_images():
    x, w, b = draw((0, 2, 4, 4), (3, 2, 3, 3), 3)
    out = conv_kernels.conv_forward(x, w, b, 1, 0)
    dx, dw, db = conv_kernels.conv_backward(out, x, w, 1, 0)
    assert out.shape == (0, 3, 2, 2) and dx.shape == x.shape and not dw.any() and not db.any()


@pytest.mark.parametrize("HH, WW, S", [(2, 2, 2), (3, 2, 1), (2, 3, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pooling(HH, WW, S, dtype):
    x = np.random.default_rng(0).integers(4, size=(2, 3, 7, 8)).astype(dtype)  # many ties
    x[0, 0, 2, 3] = np.nan
    out, cache = max_pool_forward_naive(x, {"pool_height": HH, "pool_width": WW, "stride": S})
    ours, place = layer_kernels.pool_forward(x, HH, WW, S, out.shape, conv_kernels.in_turn)
    dout, = draw(out.shape, dtype=dtype)
    np.testing.assert_array_equal(ours, out)
    same([layer_kernels.pool_backward(dout, place, x.shape, HH, WW, S, conv_kernels.in_turn)], [max_pool_backward_naive(dout, cache)], DTYPES[dtype])


@pytest.mark.parametrize("G", [None, 1, 2])
@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_norms(G, mode, dtype):
    x, gamma, beta, dout, mean = draw((2, 4, 6, 7), 4, 4, (2, 4, 6, 7), 4, dtype=dtype)
    if G:
        out, cache = spatial_groupnorm_forward(x, gamma, beta, G, {})
        grads, given = spatial_groupnorm_backward(dout, cache), (None, None)
    else:
        out, cache = spatial_batchnorm_forward(x, gamma, beta, {"mode": mode, "running_mean": mean, "running_var": mean**2})
        grads, given = spatial_batchnorm_backward(dout, cache), (None, None) if mode == "train" else (mean.astype(float), mean.astype(float)**2)
    ours, dx = np.empty_like(x), np.empty_like(x)
    mu, var = layer_kernels.norm_forward(x, ours, gamma, beta, G, 1e-5, *given, conv_kernels.in_turn)
    train = given[0] is None
    same([ours, dx, *layer_kernels.norm_backward(dout, x, dx, gamma, G, 1e-5, mu, var, train, conv_kernels.in_turn)], [out, *grads], DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu(dtype):
    x, dout = draw((3, 5), (3, 5), dtype=dtype)
    dx = np.empty(15, dtype)
    layer_kernels.relu_gradient(dout.ravel(), x.ravel(), dx, 0, 15)
    assert np.array_equal(dx.reshape(3, 5), relu_backward(dout, x))


@pytest.mark.parametrize("rule", [optim.sgd, optim.sgd_momentum, optim.rmsprop, optim.adam])
@pytest.mark.parametrize("dtype", DTYPES)
def test_steps(rule, dtype, monkeypatch):
    def interpreted(name, arrays, numbers):
        layer_kernels.in_parts(getattr(layer_kernels, f"{name}_step"), arrays, numbers, conv_kernels.in_turn)
        return True
    results = []
    for step in interpreted, lambda *_: False:
        monkeypatch.setattr(optim, "step_in_place", step)
        (w, *gradients), config = draw((3, 4), (3, 4), (3, 4), dtype=dtype), {}
        for dw in gradients: rule(w, dw, config)
        results.append([w, *(v for v in config.values() if isinstance(v, np.ndarray))])
    same(*results, DTYPES[dtype])
