"""Random layers for the compiled kernels, and what has to come out: for the tests, and for `make fuzz`, `make sanitize` and `make mutate`.

A case holds sizes and a seed, nothing else: `check(case, kernels)` draws the numbers, lays them out in memory, runs the fast layer on these
kernels and compares with float64 NumPy. Every work space and every result that a kernel gets is full of NaN and lies between guard zones.
"""
import ctypes
import importlib
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

from cs231n_lit import _threads, layer_utils, optim
from cs231n_lit import fast_layers as fast
from cs231n_lit.kernels.compiled import KERNELS, choices, load
from cs231n_lit.layers import affine_backward, affine_forward, relu_backward, relu_forward
from cs231n_lit.spatial_norm import (spatial_batchnorm_backward, spatial_batchnorm_forward, spatial_groupnorm_backward,
                                     spatial_groupnorm_forward)
from layouts import layouts

LIMIT = {"float32": 1e-5, "float64": 1e-12}  # of the largest number, or of what sums of both signs may come to
LAYOUTS = ["plain", *(name for name in layouts if name != "a list")]


forbid = getattr(ctypes.pythonapi, "__asan_poison_memory_region", lambda place, nbytes: None)  # bytes that nobody may touch, where AddressSanitizer runs


class Memory:
    "Hands out work space and results, and keeps an eye on them."
    ZONE = 4096  # bytes before and behind
    def __init__(self): self.blocks, self.inputs, self.rooms = [], [], {}

    def aligned(self, n, dtype, unit=64):
        "n numbers that are NaN (-1 in whole numbers), the first on a multiple of `unit` bytes."
        nbytes = n * np.dtype(dtype).itemsize
        block = np.full(nbytes + unit + 2 * self.ZONE, 255, np.uint8)
        start = self.ZONE + -(block.ctypes.data + self.ZONE) % unit
        self.blocks.append((block, start, start + nbytes))
        for first, end in (0, start), (start + nbytes, len(block)): forbid(ctypes.c_void_p(block.ctypes.data + first), ctypes.c_size_t(end - first))
        return block[start:start + nbytes].view(dtype)

    def scratch_space(self, n, dtype, use="room"):
        "n more numbers; what the thread got for that use before is made NaN, as if the next had written there."
        key = threading.get_ident(), use
        if key in self.rooms: self.rooms[key].view(np.uint8)[:] = 255
        self.rooms[key] = self.aligned(n, dtype)
        return self.rooms[key]

    def given(self, a):
        "An argument, which no call may change: where it is contiguous, a copy of it between guard zones."
        if a.flags.carray and a.dtype.isnative:
            inside = self.aligned(a.size, a.dtype, a.itemsize).reshape(a.shape)
            inside[...] = a
            a = inside
        self.inputs.append((a, a.tobytes()))
        return a

    def check(self):
        for block, start, end in self.blocks:
            for zone in block[:start], block[end:]: assert (zone == 255).all(), f"{(zone != 255).sum()} bytes beside {end - start} bytes of memory were changed"
        for a, kept in self.inputs: assert a.tobytes() == kept, f"an argument {a.shape} was changed"


class Kernels:
    "The compiled kernels of one instruction set."
    def __init__(self, ending):
        self.name, self.compiled = ending, load([ending])
        self.modules = list(self.compiled.values())
        self.conv, self.layer = self.modules
        self.memory = self.conv.aligned, self.conv.scratch_space  # its own, for which the tests have others

    def __repr__(self): return self.name

    @property
    def ways(self):
        "Of convolving, by name."
        return self.conv.WAYS


class Interpreted(Kernels):
    "The kernels' sources, run by Python."
    def __init__(self):
        self.name, self.modules = "interpreted", [importlib.import_module(f"cs231n_lit.kernels.{name}") for name in SOURCES]
        self.conv, self.layer = self.modules[0], SimpleNamespace(**{name: value for module in self.modules for name, value in vars(module).items()})
        self.compiled = dict(zip(KERNELS, (self.conv, self.layer)))


class InNumPy(Kernels):
    "No kernels."
    ways = {}
    def __init__(self): self.name, self.compiled, self.modules, self.conv, self.layer = "numpy", {}, [], None, None


SOURCES = ["conv", "memory", "share", "windows", "window_gradients", "strips", "four_rows", "winograd", "winograd_gradients", "matrix", "traffic", "pooling", "norms", "updates"]


def found():
    "The kernels that are compiled and that this processor can run."
    return [Kernels(ending) for ending in choices() if load([ending])]


@contextmanager
def replaced(*changes):
    "Attributes (of, name, value) of modules, for a while."
    kept = [(of, name, getattr(of, name)) for of, name, _ in changes if hasattr(of, name)]
    for of, name, _ in kept: setattr(of, name, next(value for o, n, value in changes if o is of and n == name))
    try: yield
    finally:
        for of, name, value in kept: setattr(of, name, value)


@contextmanager
def at_work(kernels, case):
    "The fast layers on these kernels, with memory of ours; all work shared out, however little, if the case is an eager one."
    memory = Memory()
    shared = lambda task, count, grain=1: _threads.parallel(task, count)
    before = fast.get_num_threads()
    fast.set_num_threads(case.threads)
    changes = [(fast, "_compiled", kernels.compiled), (fast, "_conv", kernels.conv), (fast, "_layer", kernels.layer)]
    for module in kernels.modules:
        changes += [(module, "aligned", memory.aligned), (module, "scratch_space", memory.scratch_space)]
        if case.eager: changes += [(module, "ALONE", 0), (module, "CHUNK", 0)]
    if case.eager: changes.append((fast, "parallel", shared))
    if (way := getattr(case, "way", None)):
        ways = [kernels.conv.WAYS[way], *[kernels.conv.WAYS["windows"]] * case.spoilt]  # where all numbers are finite the way may not leave it to another
        changes.append((kernels.conv, "to_try", lambda *_: ways))
    try:
        with replaced(*changes), np.errstate(all="ignore"): yield memory
    finally: fast.set_num_threads(before)


def compare(what, got, want, dtype, terms=1):
    "`want` was computed in float64; `terms` numbers were added up for one of its own."
    assert got.shape == want.shape and got.dtype == dtype, f"{what} is {got.dtype} {got.shape}, not {dtype} {want.shape}"
    assert (np.isnan(got) == np.isnan(want)).all() and (got[np.isinf(want)] == want[np.isinf(want)]).all(), f"{what} has NaN or infinities in other places"
    fine = np.isfinite(want)
    scale = max(abs(want[fine]).max(initial=0), terms**.5)
    error = abs(got[fine] - want[fine]).max(initial=0)
    assert error <= LIMIT[np.dtype(dtype).name] * scale, f"{what} {want.shape} is off by {error:.1e}, and its largest number is {scale:.1e}"


def exactly(*arrays): return [np.asarray(a).astype(float) for a in arrays]


@dataclass(frozen=True, kw_only=True)
class Case:
    "What every case has."
    dtype: str = "float32"
    threads: int = 1
    eager: bool = False      # is work shared out that is not worth it?
    layout: str = "plain"    # of about half of the arrays
    spoilt: bool = False     # NaN and infinities among the numbers
    seed: int = 0

    def check(self, kernels):
        with at_work(kernels, self) as memory:
            object.__setattr__(self, "tools", (np.random.default_rng(self.seed), memory))
            self.run()
            memory.check()

    def draw(self, *shape, spoil=False):
        rng, memory = self.tools
        a = rng.standard_normal(shape).astype(self.dtype)
        if spoil and self.spoilt: a[rng.random(shape) < .02] = rng.choice([np.nan, np.inf, -np.inf])
        if self.layout != "plain" and a.ndim and a.size and rng.random() < .5: a = layouts[self.layout](a)
        return memory.given(a)


def windows(x, HH, WW, S, P=0):
    "All windows of padded images, (N, C, H', W', HH, WW)."
    pad = np.pad(x, ((0, 0), (0, 0), (P, P), (P, P)))
    return np.lib.stride_tricks.sliding_window_view(pad, (HH, WW), axis=(2, 3))[:, :, ::S, ::S]


@dataclass(frozen=True)
class Conv(Case):
    x: tuple
    w: tuple
    stride: int
    pad: int
    way: str | None = None

    def work(self):
        "Multiply-adds."
        (N, C, H, W), (F, _, HH, WW), S, P = self.x, self.w, self.stride, self.pad
        return N * ((H + 2 * P - HH) // S + 1) * ((W + 2 * P - WW) // S + 1) * F * C * HH * WW

    def reference(self, x, w, b, dout):
        "out, dx, dw and db in float64."
        (N, C, H, W), (F, _, HH, WW), S, P = self.x, self.w, self.stride, self.pad
        X, (Ho, Wo) = windows(x, HH, WW, S, P), dout.shape[2:]
        dx, columns = np.zeros((N, C, H + 2 * P, W + 2 * P)), np.tensordot(dout, w, (1, 0))  # (N, H', W', C, HH, WW)
        for p, q in np.ndindex(HH, WW): dx[:, :, p:p + S * Ho:S, q:q + S * Wo:S] += columns[..., p, q].transpose(0, 3, 1, 2)
        out = np.tensordot(X, w, ([1, 4, 5], [1, 2, 3])).transpose(0, 3, 1, 2) + b[:, None, None]
        return out, dx[:, :, P:P + H, P:P + W], np.tensordot(dout, X, ([0, 2, 3], [0, 2, 3])), dout.sum((0, 2, 3))

    def run(self):
        one = self.spoilt and self.seed % 2  # an infinity in a single filter, and all else is finite
        x, w, b = self.draw(*self.x, spoil=not one), self.draw(*self.w), self.draw(self.w[0])
        if one: w = self.with_infinity(w)
        param, exact = {"stride": self.stride, "pad": self.pad}, exactly(x, w, b)
        out, cache = fast.conv_forward_fast(x, w, b, param)
        dout = self.draw(*out.shape, spoil=not one)
        want, *gradients = self.reference(*exact, *exactly(dout))
        terms = dout.size // max(1, len(w))
        compare("out", out, want, self.dtype, np.prod(self.w[1:]))
        got = fast.conv_backward_fast(dout, cache)
        for name, g, e, n in zip(("dx", "dw", "db"), got, gradients, (w[:, 0].size, terms, terms)): compare(name, g, e, self.dtype, n)
        without = fast.conv_backward_fast(dout, cache, need_dx=False)
        assert without[0] is None
        for name, g, e in zip(("dw", "db"), without[1:], gradients[1:]): compare(f"{name} without dx", g, e, self.dtype, terms)
        assert param == {"stride": self.stride, "pad": self.pad}
        if out.size and not self.spoilt: self.alone(x, w, b, dout, out, got[0])

    def with_infinity(self, w):
        "w, but one number of its first filter, or, as the seed says, of its last, is infinite."
        rng, memory = self.tools
        w = np.array(w)
        w[(-(self.seed // 2 % 2), *(rng.integers(n) for n in w.shape[1:]))] = rng.choice([np.inf, -np.inf])
        return memory.given(w)

    def alone(self, x, w, b, dout, out, dx):
        "Neither threads nor the images beside it change one bit of an image's results."
        fast.set_num_threads(1)
        n, param = int(self.tools[0].integers(len(x))), {"stride": self.stride, "pad": self.pad}
        for what, some in [("on one thread", slice(None))] * (self.threads > 1) + [("of one image", slice(n, n + 1))] * (self.way is not None):
            again, cache = fast.conv_forward_fast(x[some], w, b, param)
            assert np.array_equal(again, out[some]), f"out {what} is different"
            assert np.array_equal(fast.conv_backward_fast(dout[some], cache)[0], dx[some]), f"dx {what} is different"


@dataclass(frozen=True)
class Affine(Case):
    N: int
    D: int
    M: int

    def run(self):
        x, w, b, dout = self.draw(self.N, self.D), self.draw(self.D, self.M), self.draw(self.M), self.draw(self.N, self.M)
        want, slow = affine_forward(*exactly(x, w, b))
        out, cache = fast.affine_forward_fast(x, w, b)
        compare("out", out, want, self.dtype, self.D)
        for name, g, e, n in zip(("dx", "dw", "db"), fast.affine_backward_fast(dout, cache), affine_backward(*exactly(dout), slow), (self.M, self.N, self.N)):
            compare(name, g, e, self.dtype, n)


@dataclass(frozen=True)
class Pool(Case):
    x: tuple
    window: tuple
    stride: int

    def run(self):
        rng, memory = self.tools
        x = self.draw(*self.x, spoil=True)
        if rng.random() < .5: x = memory.given(np.round(x))  # many numbers are the same
        (N, C, H, W), (HH, WW), S = self.x, self.window, self.stride
        param = {"pool_height": HH, "pool_width": WW, "stride": S}
        out, cache = fast.max_pool_forward_fast(x, param)
        dout = self.draw(*out.shape)
        X = windows(x.astype(self.dtype), HH, WW, S).reshape(*out.shape, HH * WW)
        place, dx = X.argmax(-1), np.zeros(self.x)  # the first of several, and NaN before all others
        n, c, i, j = np.indices(out.shape)
        np.add.at(dx, (n, c, i * S + place // WW, j * S + place % WW), dout.astype(float))
        np.testing.assert_array_equal(out, np.take_along_axis(X, place[..., None], -1)[..., 0])
        for c in cache, tuple(cache): compare("dx", fast.max_pool_backward_fast(dout, c), dx, self.dtype)


@dataclass(frozen=True)
class Norm(Case):
    x: tuple
    G: int | None = None  # groups; None for batch norm
    mode: str = "train"

    def run(self):
        N, C, H, W = self.x
        x, gamma, beta, dout, mean = self.draw(*self.x), self.draw(C), self.draw(C), self.draw(*self.x), self.draw(C)
        names = ("running_mean", "running_var")
        params = [{"mode": self.mode, "eps": .1, **dict(zip(names, (mean, mean**2)))} if self.G is None else {"eps": .1} for _ in range(2)]
        kind, more = ("batchnorm", ()) if self.G is None else ("groupnorm", (self.G,))
        forward, backward = (getattr(fast, f"spatial_{kind}_{way}_fast") for way in ("forward", "backward"))
        slow_forward, slow_backward = (globals()[f"spatial_{kind}_{way}"] for way in ("forward", "backward"))
        out, cache = forward(x, gamma, beta, *more, params[0])
        if self.G is None: params[1].update(zip(names, exactly(mean, mean**2)))
        want, slow = slow_forward(*exactly(x, gamma, beta), *more, params[1])
        compare("out", out, want, self.dtype)
        if self.G is None:
            for name in names:  # when testing they stay the caller's own, byte order and all
                kept = params[0][name] if self.mode == "train" else np.asarray(params[0][name], self.dtype)
                compare(name, kept, np.asarray(params[1][name]), self.dtype)
        terms = 100 * N * H * W
        for name, g, e, n in zip(("dx", "dgamma", "dbeta"), backward(dout, cache), slow_backward(*exactly(dout), slow), (100, terms, terms)): compare(name, g, e, self.dtype, n)


@dataclass(frozen=True)
class Relu(Case):
    x: tuple

    def run(self):
        x, dout = self.draw(*self.x, spoil=True), self.draw(*self.x)
        out, cache = fast.relu_forward_fast(x)
        want, slow = relu_forward(*exactly(x))
        compare("out", out, want, self.dtype)
        compare("dx", fast.relu_backward_fast(dout, cache), relu_backward(*exactly(dout), slow), self.dtype)


@dataclass(frozen=True)
class Step(Case):
    rule: str
    x: tuple

    def run(self):
        rule, memory = getattr(optim, self.rule), self.tools[1]
        w = memory.aligned(int(np.prod(self.x)), self.dtype).reshape(self.x)
        w[...] = self.draw(*self.x)
        slow, config, slow_config = w.astype(float), {}, {}
        for _ in range(3):
            dw = self.draw(*self.x)
            w, config = rule(w, dw, config)
            with replaced((fast, "_compiled", {})): slow, slow_config = rule(slow, *exactly(dw), slow_config)
            compare("w", w, slow, self.dtype)
        for name, state in slow_config.items():
            if isinstance(state, np.ndarray): compare(name, config[name], state, self.dtype)


@dataclass(frozen=True)
class Sandwich(Case):
    "The combined layers on the compiled kernels and without them, and twice the same gradients."
    name: str
    x: tuple
    F: int

    def run(self):
        N, C, H, W = self.x
        x, w, b, gamma, beta = self.draw(*self.x), self.draw(self.F, C, 3, 3), self.draw(self.F), self.draw(self.F), self.draw(self.F)
        conv, pool = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}
        between = {"conv_relu": lambda: (conv,), "conv_relu_pool": lambda: (conv, pool),
                   "conv_bn_relu": lambda: (*scales, conv, {"mode": "train", "eps": .1})}[self.name]
        forward, backward = (getattr(layer_utils, f"{self.name}_{way}") for way in ("forward", "backward"))
        scales = gamma, beta
        out, cache = forward(x, w, b, *between())
        dout = self.draw(*out.shape)
        grads, again = backward(dout, cache), backward(dout, cache)
        assert all(np.array_equal(a, b) for a, b in zip(grads, again)), "another answer the second time"
        assert all(np.isfinite(g).all() for g in grads) and [g.shape for g in grads[:3]] == [a.shape for a in (x, w, b)]
        scales = exactly(gamma, beta)
        with replaced((fast, "_compiled", {})): want = forward(*exactly(x, w, b), *between())[0]
        compare("out", out, want, self.dtype, 9 * C)


@dataclass(frozen=True)
class LastPixel(Case):
    "An infinity in the last pixel reaches the last result, which is looked at like all others; of 3 x 3 pixels it is the first as well."
    way: str | None = None
    side: int = 5

    def run(self):
        memory, x, w, b = self.tools[1], np.ones((1, 1, self.side, self.side), self.dtype), self.draw(1, 1, 3, 3), self.draw(1)
        x[0, 0, -1, -1] = np.inf
        out, _ = fast.conv_forward_fast(memory.given(x), w, b, {"stride": 1, "pad": 0})
        with np.errstate(all="ignore"): compare("out", out, np.einsum("ncijpq,fcpq->nfij", windows(x.astype(float), 3, 3, 1), w.astype(float)) + b[0].astype(float), self.dtype, 9)


@dataclass(frozen=True)
class Space(Case):
    "Results and work space as the kernels get them outside of tests: of the size asked for, and from the start of a line of the cache."
    sizes: tuple = (1, 5, 64, 63, 1000)

    def check(self, kernels):
        for new in kernels.memory:
            for n in self.sizes:
                a = new(n, np.dtype(self.dtype))
                assert a.shape == (n,) and a.dtype == self.dtype and a.ctypes.data % 64 == 0, f"{new} gives {a.shape}, {a.ctypes.data % 64} bytes behind the start of a line"


SETTING = dict(dtype=st.sampled_from(["float32", "float64"]), threads=st.integers(1, 4), eager=st.booleans(),
               layout=st.sampled_from(["plain"] * 3 + LAYOUTS), spoilt=st.sampled_from([False] * 9 + [True]), seed=st.integers(0, 2**32 - 1))
WORK = 1 << 18  # multiply-adds in a case, about


@st.composite
def convs(draw, kernels):
    "Layers for each way of convolving; which one, if several can."
    kind = draw(st.sampled_from(["any", "any", "square", "3 x 3", "3 x 3", "1 x 1", "1 x 1", "wide"]))
    between = lambda low, high: draw(st.integers(low, high))
    HH, WW = (3, 3) if kind == "3 x 3" else (1, 1) if kind == "1 x 1" else (between(1, 8), between(1, 8))
    if kind == "square": WW = HH
    S = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 5, 9])) if kind in ("any", "wide") else 1
    P = between(0, 4) if kind not in ("1 x 1", "3 x 3") else draw(st.sampled_from([0, 0, 0, 1, 2]))
    many = 40 if kind in ("3 x 3", "1 x 1") else 20
    N, C, F = between(1, 20), between(1, many), between(1, many + 30)
    if kind == "wide": N, C = between(1, 3), between(1, 3)
    H, W = (max(1, n - 2 * P) + S * between(0, most) for n, most in ((HH, 20), (WW, 200 if kind == "wide" else 40)))
    H, W = (max(1, n - between(0, S - 1)) if n > size - 2 * P + S - 1 else n for n, size in ((H, HH), (W, WW)))  # the last pixels may be left over
    Ho, Wo = (H + 2 * P - HH) // S + 1, (W + 2 * P - WW) // S + 1
    N = max(1, min(N, WORK // (Ho * Wo * C * HH * WW * F)))
    if N == 1: F = max(1, min(F, 2 * WORK // (Ho * Wo * C * HH * WW)))
    x, w = (N, C, H, W), (F, C, HH, WW)
    ways = [name for name, way in kernels.ways.items() if way.supports(x, w, S, P)]
    return Conv(x, w, S, P, draw(st.sampled_from([None, *ways, *ways[:1]])), **{name: draw(values) for name, values in SETTING.items()})


size, small = st.integers(1, 40), st.integers(1, 9)
nothing = st.sampled_from([0] + [1] * 20)  # times a size: a batch with nothing in it


@st.composite
def pools(draw):
    HH, WW, S = draw(st.one_of(st.just((2, 2, 2)), st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 6))))  # the first has a kernel's loop of its own
    x = draw(st.integers(1, 5)), draw(small), HH + draw(small) - 1, WW + draw(size) - 1
    return Pool(x, (HH, WW), S, **{name: draw(values) for name, values in SETTING.items()})


@st.composite
def norms(draw):
    G = draw(st.sampled_from([None, 1, 2, 3, 4]))
    per = draw(st.integers(1, 5) if G else st.one_of(st.integers(1, 5), st.integers(6, 40)))  # with many channels, more than one run of sets
    x = draw(st.integers(1, 6)), (G or 1) * per, draw(st.integers(1, 14)), draw(st.integers(1, 40))
    return Norm(x, G, draw(st.sampled_from(["train", "train", "test"])), **{name: draw(values) for name, values in SETTING.items()})


def others():
    "Affine layers, ReLU, updates and combined layers."
    shapes = st.lists(st.integers(1, 40), min_size=0, max_size=3).map(tuple)
    long, images = st.one_of(size, st.integers(1, 700)), st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(4, 12), st.integers(4, 12))
    return {"affine": st.builds(Affine, size, long, long, **SETTING), "relu": st.builds(Relu, shapes, **SETTING),
            "step": st.builds(Step, st.sampled_from(["sgd", "sgd_momentum", "rmsprop", "adam"]), shapes, **SETTING),
            "sandwich": st.builds(Sandwich, st.sampled_from(["conv_relu", "conv_bn_relu", "conv_relu_pool"]), images, st.integers(1, 20), **SETTING)}


def layers(kernels):
    "Strategies by the name of what they draw."
    return {"conv": convs(kernels), "pool": pools(), "norm": norms(), **others()}


# (x, w, stride, pad): shapes at which something has gone wrong, or could
AWKWARD = [((4, 3, 17, 17), (25, 3, 7, 7), 1, 3), ((3, 8, 15, 15), (7, 8, 5, 5), 1, 2), ((3, 8, 11, 11), (7, 8, 5, 5), 1, 2),  # a border that was written to
           ((5, 5, 31, 12), (50, 5, 5, 9), 1, 3), ((2, 3, 40, 33), (6, 3, 7, 5), 1, 3),                                      # the same, in float64; in several bands
           ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0), ((3, 2, 1, 1), (4, 2, 5, 5), 1, 2), ((2, 3, 2, 1), (5, 3, 7, 6), 2, 3),        # one pixel; filters larger than the image
           ((2, 2, 19, 23), (3, 2, 2, 3), 5, 1), ((2, 1, 9, 9), (6, 1, 1, 1), 4, 2), ((3, 16, 4, 4), (16, 16, 3, 3), 1, 1),   # strides beyond the filter; just enough channels
           ((20, 17, 5, 7), (18, 17, 3, 3), 1, 0), ((2, 16, 33, 2), (17, 16, 3, 3), 1, 2), ((13, 4, 65, 65), (3, 4, 3, 3), 2, 1),
           ((2, 70, 6, 6), (96, 70, 3, 3), 2, 1), ((1, 3, 40, 300), (4, 3, 5, 3), 2, 1), ((2, 7, 9, 33), (400, 7, 1, 1), 1, 0),  # filters so many that dout comes in bands
           ((2, 3, 9, 15), (9, 3, 3, 3), 1, 1),  # results one less than a multiple of 64: who looks for NaN may not look at the number behind them
           ((1, 6, 5, 39), (700, 6, 1, 1), 1, 0), ((9, 8, 9, 9), (9, 8, 1, 1), 1, 0), ((3, 13, 13, 20), (65, 13, 1, 1), 1, 0),
           ((2, 2, 9, 30), (6, 2, 3, 4), 3, 1), ((1, 3, 11, 40), (5, 3, 3, 2), 4, 0), ((3, 2, 9, 20), (6, 2, 3, 3), 2, 1),  # strips of every third, fourth and second number
           ((1, 16, 12, 12), (16, 16, 5, 5), 1, 2), ((1, 16, 23, 23), (16, 16, 3, 3), 2, 1), ((1, 16, 12, 12), (16, 16, 3, 3), 1, 3),  # all but Winograd's
           ((2, 4, 9, 9), (8, 4, 3, 3), 1, 0), ((2, 4, 7, 12), (8, 4, 5, 5), 1, 0), ((2, 4, 19, 19), (8, 4, 5, 5), 2, 0), ((2, 4, 12, 12), (4, 4, 5, 5), 1, 0)]  # all but a strip, four rows


def ends(dtype):
    "The first and the last of several numbers, filters and results that are looked at, and the ends of loops and of work space."
    for way in "winograd", "windows":
        for side in 3, 5: yield LastPixel(way, side=side, dtype=dtype, spoilt=True)
    for seed in 1, 3:  # an infinity in the first filter, or in the last
        for way, size in ("winograd", 3), ("four rows", 5): yield Conv((2, 4, 12, 12), (7, 4, size, size), 1, 2, way, dtype=dtype, spoilt=True, seed=seed)
    yield Conv((2, 1, 8, 12), (4, 1, 1, 1), 1, 0, "windows", dtype=dtype)         # as many places at once as there can be
    yield Conv((1, 3, 6, 6), (15, 3, 3, 3), 1, 0, "windows", dtype=dtype)         # one filter less than a block has that is turned around
    yield Conv((1, 112, 5, 5), (1, 112, 5, 5), 1, 0, "windows", dtype=dtype)      # a window so large that few are worked on at once
    yield Conv((1, 1, 5, 97), (700, 1, 2, 1), 1, 0, "windows", dtype=dtype, threads=2, eager=True)  # a step that ends one place before a band
    yield Conv((2, 3, 9, 15), (9, 3, 3, 3), 1, 1, "strips", dtype=dtype)          # rows one place too short for a strip of sixteen
    yield Conv((1, 1, 9, 18), (5, 1, 3, 3), 2, 0, "strips", dtype=dtype)          # parts of the image of 81 numbers, and of 144
    yield Conv((1, 2, 8, 18), (5, 2, 2, 3), 2, 0, "strips", dtype=dtype)
    yield Conv((1, 1, 1, 66000), (5, 1, 1, 8), 1, 0, "strips", dtype=dtype)       # a row so long that a band has no other
    yield Conv((1, 2, 8, 12), (5, 2, 5, 5), 1, 0, "four rows", dtype=dtype)       # one strip
    yield Conv((1, 2, 10, 14), (5, 2, 5, 5), 1, 1, "four rows", dtype=dtype, threads=2, eager=True)  # a band whose last number is in the border
    yield Conv((1, 4, 20, 40), (8, 4, 5, 5), 2, 1, dtype=dtype)                   # four rows, but for the stride
    for H, W in (4, 12), (3, 11): yield Conv((8, 16, H, W), (64, 16, 3, 3), 1, 1, "winograd", dtype=dtype)  # all work space in use
    yield Conv((1, 6, 4, 4), (16, 6, 3, 3), 1, 1, "winograd", dtype=dtype)        # full tiles and vectors
    yield Conv((1, 1, 6, 100), (1, 1, 3, 3), 1, 0, "winograd", dtype=dtype)       # rows so long that one is worked on at a time
    yield Conv((3, 17, 5, 5), (20, 17, 3, 3), 1, 1, "winograd", dtype=dtype, threads=3, eager=True)  # sums in three parts
    yield Affine(100, 100, 520, dtype=dtype)
    yield Affine(11, 97, 16, dtype=dtype)         # a row less than full tiles, a step more than a block
    yield Affine(2, 2048, 3, dtype=dtype, threads=2)  # in two parts, which are added
    yield Pool((1, 1, 5, 6), (3, 2), 2, dtype=dtype)  # nearly windows of 2 x 2, side by side
    yield Pool((1, 1, 6, 6), (2, 2), 3, dtype=dtype)
    for G in None, 1: yield Norm((2, 3, 5, 3), G, dtype=dtype)  # 15 numbers, where 16 are added at a time
    yield Norm((1, 2, 1, 4100), dtype=dtype)      # segments so long that they are normalized one by one
    yield Space(dtype=dtype)


# Batches with nothing in them, and layers
NOTHING = [Conv((0, 3, 8, 8), (4, 3, 3, 3), 1, 1), Conv((2, 3, 8, 8), (0, 3, 3, 3), 1, 1), Pool((0, 3, 8, 8), (2, 2), 2), Norm((0, 4, 3, 3)), Norm((0, 4, 3, 3), 2), Relu((0, 3)), Step("adam", (0, 3)),
           Affine(0, 3, 4), Affine(2, 0, 4), Affine(2, 3, 0)]
