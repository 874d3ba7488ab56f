"""The kernels' sources run by Python instead of a compiler, on small layers: the same answers, with vector registers of each width."""
import sys
from dataclasses import replace

import numpy as np
import pytest

import cs231n_lit.kernels.conv as conv_kernels
import cs231n_lit.kernels.tile as tile
from cs231n_lit.convolution import conv_backward_naive, conv_forward_naive
from kernel_cases import Interpreted, Norm, Pool, Relu, Step

DTYPES = {np.float32: 1e-5, np.float64: 1e-12}  # and how much of the largest number an error may be

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")  # from what lies in memory beyond the last row; nobody uses it


def draw(*shapes, dtype=float):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def same(ours, theirs, limit):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and abs(a - b).max() <= limit * abs(b).max()


@pytest.fixture(params=[(16, 16, np.float64), (16, 32, np.float32), (32, 16, np.float32), (64, 32, np.float32)],
                ids=["4 numbers", "4 numbers in 32 registers", "8 numbers", "16 numbers"])
def dtype(request, monkeypatch):
    "A type of number, and kernels that plan for registers of so many of them."
    def forget():
        for name in [name for name in sys.modules if name.startswith("cs231n_lit.kernels.")]:
            for thing in vars(sys.modules[name]).values(): getattr(thing, "cache_clear", int)()
    forget()
    for name, value in zip(("vector_bytes", "registers"), request.param): monkeypatch.setattr(tile, name, lambda value=value: value)
    yield request.param[2]
    forget()


@pytest.mark.parametrize("way, x_shape, w_shape, S, P", [
    ("windows", (3, 2, 6, 7), (9, 2, 3, 2), 2, 1), ("windows", (2, 3, 5, 4), (2, 3, 2, 3), 1, 2), ("windows", (1, 25, 2, 2), (64, 25, 2, 2), 1, 0),
    ("windows", (1, 1, 9, 8), (6, 1, 2, 2), 3, 0),
    ("strips", (1, 2, 6, 20), (7, 2, 3, 3), 1, 1), ("strips", (1, 1, 5, 17), (6, 1, 3, 2), 2, 1), ("four rows", (1, 4, 5, 10), (6, 4, 5, 5), 1, 2), ("four rows", (1, 2, 10, 16), (5, 2, 7, 8), 1, 0), ("windows", (2, 7, 5, 4), (18, 7, 1, 1), 1, 0),
    ("winograd", (3, 3, 5, 5), (5, 3, 3, 3), 1, 1), ("winograd", (1, 9, 4, 4), (18, 9, 3, 3), 1, 0)])
def test_convolution(way, x_shape, w_shape, S, P, dtype):
    assert conv_kernels.WAYS[way].supports(x_shape, w_shape, S, P)
    x, w, b = draw(x_shape, w_shape, w_shape[0], dtype=dtype)
    out, cache = conv_forward_naive(x, w, b, {"stride": S, "pad": P})
    dout, = draw(out.shape, dtype=dtype)
    ours = conv_kernels.conv_forward(x, w, b, S, P, way=way), *conv_kernels.conv_backward(dout, x, w, S, P, team=conv_kernels.Team(threads=2), way=way)
    same(ours, [out, *conv_backward_naive(dout, cache)], DTYPES[dtype])
    assert conv_kernels.conv_backward(dout, x, w, S, P, need_dx=False)[0] is None


def test_affine(dtype):
    x, w, b, dout = draw((8, 21), (21, 9), 9, (8, 9), dtype=dtype)
    same([conv_kernels.affine_forward(x, w, b), *conv_kernels.affine_backward(dout, x, w, conv_kernels.Team(threads=2))], [x @ w + b, dout @ w.T, x.T @ dout], DTYPES[dtype])


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", [Pool((2, 3, 7, 8), (2, 2), 2, spoilt=True, seed=1), Pool((2, 2, 7, 8), (3, 2), 1, seed=2), Pool((1, 2, 6, 11), (2, 3), 3), Pool((1, 1, 5, 9), (1, 4), 5),
                                  Norm((2, 4, 6, 7)), Norm((2, 3, 5, 7), mode="test"), Norm((2, 4, 6, 7), 1), Norm((2, 4, 3, 13), 2), Relu((3, 5), spoilt=True),
                                  *(Step(rule, (3, 4)) for rule in ("sgd", "sgd_momentum", "rmsprop", "adam"))], ids=str)
def test_other_layers(case, dtype): replace(case, dtype=dtype).check(Interpreted())
