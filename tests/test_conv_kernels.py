"""The compiled convolution on random shapes, odd numbers and several threads, and a guard of its speed."""
import importlib
from functools import partial
from time import perf_counter

import numpy as np
import pytest

import cs231n_lit.kernels.conv as interpreted
import cs231n_lit.kernels.four_rows as interpreted_four_rows
import cs231n_lit.kernels.strips as interpreted_strips
import cs231n_lit.kernels.windows as interpreted_windows
from cs231n_lit._threads import get_num_threads, parallel, set_num_threads
from cs231n_lit.convolution import conv_backward_naive, conv_forward_naive
from cs231n_lit.kernels.compiled import choices


def compiled():
    "The compiled kernels that this processor can run."
    found = []
    for ending in choices():
        try: found.append(importlib.import_module(f"cs231n_lit.kernels._conv_{ending}"))
        except ImportError: pass
    return found


KERNELS = compiled()
pytestmark = pytest.mark.skipif(not KERNELS, reason="kernels are not compiled")


def windows(x, w, S, P):
    pad = np.pad(x, ((0, 0), (0, 0), (P, P), (P, P)))
    return np.lib.stride_tricks.sliding_window_view(pad, w.shape[2:], axis=(2, 3))[:, :, ::S, ::S]


def reference(x, w, b, dout, S, P):
    "out, dx, dw and db in float64, in a way of its own."
    x, w, b, dout = (a.astype(float) for a in (x, w, b, dout))
    X = windows(x, w, S, P)
    (Ho, Wo), (HH, WW) = dout.shape[2:], w.shape[2:]
    dx = np.zeros((*x.shape[:2], x.shape[2] + 2 * P, x.shape[3] + 2 * P))
    for p in range(HH):
        for q in range(WW): dx[:, :, p:p + S * Ho:S, q:q + S * Wo:S] += np.einsum("nfij,fc->ncij", dout, w[:, :, p, q])
    dw = np.tensordot(dout, X, ([0, 2, 3], [0, 2, 3]))
    out = np.tensordot(X, w, ([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2) + b[:, None, None]
    return out, dx[:, :, P:P + x.shape[2], P:P + x.shape[3]], dw, dout.sum((0, 2, 3))


def draw(rng, winograd=False, bands=False):
    "Shapes and settings of a random convolution."
    if winograd: (HH, WW, S), P, C, F = (3, 3, 1), rng.integers(0, 3), rng.integers(16, 40), rng.integers(16, 70)
    elif bands:  # images that do not fit the work space at once
        (HH, WW), S, P, C, F = rng.integers(3, 8, 2), rng.integers(1, 4), 1, 3, rng.integers(1, 40)
        return (1, C, 40, 900), (F, C, HH, WW), int(S), P
    else: (HH, WW, S), P, C, F = rng.integers(1, 6, 3), rng.integers(0, 4), rng.choice([1, 2, 3, 8, 17]), rng.choice([1, 2, 7, 16, 25, 33, 70])
    N, H, W = rng.integers(1, 7), max(1, HH - 2 * P) + rng.integers(8 if winograd else 0, 40 if winograd else 12), max(1, WW - 2 * P) + rng.integers(8 if winograd else 0, 40 if winograd else 20)
    return (N, C, H, W), (F, C, HH, WW), int(S), int(P)


SMALL = [((n, 70, h, h), (f, 70, 3, 3), 2, 1) for n, h, f in [(1, 2, 96), (2, 3, 70), (3, 6, 64), (13, 4, 65), (40, 1, 64)]]  # several images at once
# filters of 1 x 1, so many that they make several panels
MANY = [((2, 7, 9, 33), (400, 7, 1, 1), 1, 0), ((1, 6, 5, 39), (700, 6, 1, 1), 1, 0), ((3, 13, 13, 20), (650, 13, 1, 1), 1, 0)]


def check(kernels, x_shape, w_shape, S, P, rng, dtype, limit, threads=1, way=None):
    "Compare all four results with the reference."
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1]))
    dout = rng.standard_normal(windows(x, w, S, P).shape[:1] + w_shape[:1] + windows(x, w, S, P).shape[2:4]).astype(dtype)
    kept = [a.copy() for a in (x, w, b, dout)]
    team = kernels.Team(parallel, threads)
    got = kernels.conv_forward(x, w, b, S, P, team, way), *kernels.conv_backward(dout, x, w, S, P, True, team, way)
    for name, a, e in zip(("out", "dx", "dw", "db"), got, reference(x, w, b, dout, S, P)):
        assert a.dtype == dtype and a.shape == e.shape
        # sums of a few numbers of both signs may be small by chance: compare with what was summed, too
        scale = max(abs(e).max(), 0.1 * np.sqrt(dout.size / len(w)) if name in ("dw", "db") else 0)
        assert abs(a - e).max() <= limit * scale, (name, x_shape, w_shape, S, P, abs(a - e).max() / scale)
    assert all((a == k).all() for a, k in zip((x, w, b, dout), kept))


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda k: k.__name__[-2:])
@pytest.mark.parametrize("kind", ["any", "winograd", "bands"])
def test_random_shapes(kernels, kind):
    "float32 to 1e-5 and float64 to 1e-12 of the largest value, on 250 random layers for each instruction set."
    rng = np.random.default_rng(len(kind))
    for i in range({"any": 100, "winograd": 20, "bands": 5}[kind]):
        shapes = draw(rng, **({} if kind == "any" else {kind: True}))
        check(kernels, *shapes, rng, np.float32, 1e-5)
        check(kernels, *shapes, rng, np.float64, 1e-12)


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda k: k.__name__[-2:])
@pytest.mark.parametrize("shapes", SMALL + MANY)
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_and_bands(kernels, shapes, threads):
    rng = np.random.default_rng(0)
    check(kernels, *shapes, rng, np.float32, 1e-5, threads)
    check(kernels, *shapes, rng, np.float64, 1e-12, threads)


# several images with a border, in rows whose length is no multiple of 4: what one image leaves in the work space must not reach the next one
BORDERS = [((4, 3, 17, 17), (25, 3, 7, 7), 1, 3), ((3, 8, 15, 15), (25, 8, 5, 5), 1, 2), ((5, 8, 11, 11), (25, 8, 5, 5), 1, 2),
           ((33, 5, 31, 12), (50, 5, 5, 9), 1, 3), ((2, 7, 30, 19), (9, 7, 6, 4), 1, 1), ((3, 16, 21, 33), (7, 16, 5, 5), 1, 4), ((2, 30, 200, 25), (6, 30, 5, 3), 1, 3)]


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda k: k.__name__[-2:])
@pytest.mark.parametrize("shapes", BORDERS)
def test_borders_stay_zero(kernels, shapes):
    rng = np.random.default_rng(0)
    for way in "four rows", "strips", "windows":
        check(kernels, *shapes, rng, np.float32, 1e-5, way=way)
        check(kernels, *shapes, rng, np.float64, 1e-12, way=way)


def way_of(kernels, x_shape, w_shape, S, P, itemsize=4):
    "The first way that is tried, and the sizes of its plan forward."
    name = next(name for name, way in kernels.WAYS.items() if way.supports(x_shape, w_shape, S, P) and way.pays(x_shape, w_shape, S, P, itemsize))
    plan = {"strips": interpreted_strips.Strips, "four rows": interpreted_four_rows.FourRows, "windows": interpreted_windows.Windows}.get(name)
    return name, plan and plan(x_shape, w_shape, S, P, itemsize)


def test_each_way_is_tested():
    rng = np.random.default_rng(0)
    assert all(way_of(KERNELS[0], *draw(rng, winograd=True))[0] == "winograd" for _ in range(20))
    banded = [way_of(interpreted, *draw(rng, bands=True)) for _ in range(20)]
    assert {name for name, _ in banded} >= {"strips", "four rows"} and all(g.high < g.Ho for name, g in banded if name != "windows")
    assert {way_of(interpreted, *draw(rng))[0] for _ in range(60)} >= {"strips", "windows"}
    assert all(interpreted.WAYS["four rows"].supports(*shapes) and shapes[0][3] + 2 * shapes[3] & 3 for shapes in BORDERS)
    small = [way_of(interpreted, *shapes) for shapes in SMALL]
    assert {name for name, _ in small} == {"windows"} and {g.images for _, g in small} >= {1, 2, 13, 40}


@pytest.mark.parametrize("shapes", [((5, 3, 12, 11), (7, 3, 3, 2), 2, 1), ((9, 20, 12, 12), (18, 20, 3, 3), 1, 1), ((5, 8, 9, 9), (9, 8, 1, 1), 1, 0)])
def test_threads(shapes):
    "The number of threads changes rounding at most, and the same number gives the same bits."
    before, rng = get_num_threads(), np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in (*shapes[:2], shapes[1][:1]))
    S, P = shapes[2:]
    try:
        runs = {}
        for threads in (1, 2, 3, 3):
            set_num_threads(threads)
            team = KERNELS[0].Team(parallel, threads)
            out = KERNELS[0].conv_forward(x, w, b, S, P, team)
            got = out, *KERNELS[0].conv_backward(out, x, w, S, P, True, team)
            for a, e in zip(got, runs.get(threads, got)): assert (a == e).all()
            runs[threads] = got
    finally: set_num_threads(before)
    for a, e in zip(runs[1] + runs[1], runs[2] + runs[3]): assert abs(a - e).max() <= 1e-5 * abs(e).max()


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda k: k.__name__[-2:])
@pytest.mark.parametrize("shapes", [((2, 3, 9, 8), (5, 3, 3, 2), 2, 1), ((1, 16, 12, 12), (17, 16, 3, 3), 1, 1), ((2, 7, 6, 6), (8, 7, 1, 1), 1, 0), ((1, 5, 9, 16), (6, 5, 5, 5), 1, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("where", ["x", "w", "dout"])
def test_not_finite(kernels, shapes, value, where):
    "NaN, infinities and overflow come out where they come out of NumPy."
    rng = np.random.default_rng(1)
    S, P = shapes[2:]
    arrays = dict(x=rng.random(shapes[0]) + 1, w=rng.random(shapes[1]) + 1)
    arrays["dout"] = rng.random(conv_forward_naive(arrays["x"], arrays["w"], np.zeros(len(arrays["w"])), dict(stride=S, pad=P))[0].shape) + 1
    arrays = {k: a.astype(np.float32) for k, a in arrays.items()}
    arrays[where][(0, 1, -1, 0) if where == "w" else (0, 1, 3, 3)] = value
    x, w, dout = arrays.values()
    b = np.zeros(len(w), np.float32)
    got = kernels.conv_forward(x, w, b, S, P), *kernels.conv_backward(dout, x, w, S, P)
    with np.errstate(all="ignore"):
        out, cache = conv_forward_naive(x, w, b, dict(stride=S, pad=P))
        exact = out, *conv_backward_naive(dout, cache)
    for a, e in zip(got, exact):
        assert (np.isnan(a) == np.isnan(e)).all()
        assert (a[np.isinf(e)] == e[np.isinf(e)]).all() and np.isfinite(a[np.isfinite(e)]).all()


def test_need_dx():
    rng = np.random.default_rng(0)
    for shapes in [((3, 3, 9, 8), (5, 3, 3, 2), 2, 1), ((3, 16, 8, 8), (17, 16, 3, 3), 1, 1), ((3, 7, 6, 6), (8, 7, 1, 1), 1, 0)]:
        x, w = (rng.standard_normal(s) for s in shapes[:2])
        dout = KERNELS[0].conv_forward(x, w, np.zeros(len(w)), *shapes[2:])
        full, part = (KERNELS[0].conv_backward(dout, x, w, *shapes[2:], need) for need in (True, False))
        assert part[0] is None and all((a == e).all() for a, e in zip(part[1:], full[1:]))


def best(f, times):
    "The shortest of several times."
    def once():
        start = perf_counter()
        f()
        return perf_counter() - start
    return min(once() for _ in range(times))


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda k: k.__name__[-2:])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_speed_of_tile(kernels, dtype):
    """A compiler that does not keep the sums in registers makes the tile ten times slower and nothing else tells. A convolution is
    timed against adding up as many numbers as it has multiplications, which NumPy does with vectors, in cache."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((4, 32, 16, 16), (64, 32, 3, 5), 64))
    ours = best(partial(kernels.conv_forward, x, w, b, 1, 1), 7)
    numbers, total = np.ones((2, 4096), dtype)
    adding = best(lambda: [np.add(numbers, numbers, out=total) for _ in range(100)], 7) / 409600
    multiplications = x.shape[0] * w.size * 16 * 14
    assert ours < (6 if kernels.__name__.endswith("v1") else 0.4) * multiplications * adding  # measured: 0.3 to 2, 0.03 to 0.12


@pytest.mark.parametrize("kernels", KERNELS, ids=lambda k: k.__name__[-2:])
def test_speed_of_compiled(kernels):
    "At least 20 times the interpreted kernel on a small layer."
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s) for s in ((1, 3, 8, 8), (8, 3, 3, 3), 8))
    slow = best(partial(interpreted.conv_forward, x, w, b, 1, 1), 1)
    assert slow > 20 * best(partial(kernels.conv_forward, x, w, b, 1, 1), 5)
