"""The compiled kernels on awkward and on random layers, every way of convolving forced where it can do a layer; `make fuzz` goes on from here."""
import ctypes
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from cs231n_lit.kernels.share import Team
from kernel_cases import AWKWARD, NOTHING, Conv, InNumPy, Memory, ends, found, layers

KERNELS = found()
pytestmark = pytest.mark.skipif(not KERNELS, reason="kernels are not compiled")
each = pytest.mark.parametrize("kernels", KERNELS, ids=repr)


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shapes", AWKWARD, ids=str)
def test_awkward_layers(kernels, shapes, dtype):
    for k, way in enumerate([None, *(name for name, way in kernels.ways.items() if way.supports(*shapes))]):
        Conv(*shapes, way, dtype=dtype, threads=2 + k % 3, eager=k % 2 == 0, seed=k).check(kernels)


@each
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ends(kernels, dtype):
    for case in ends(dtype): case.check(kernels)


LAYERS = {"conv": 150, "pool": 40, "norm": 40, "affine": 30, "relu": 10, "step": 15, "sandwich": 20}


@pytest.mark.parametrize("kernels", [*KERNELS, InNumPy()], ids=repr)
@pytest.mark.parametrize("kind", LAYERS)
def test_random_layers(kernels, kind):
    "float32 to 1e-5 and float64 to 1e-12 of the largest number."
    @settings(max_examples=max(2, int(LAYERS[kind] * float(os.environ.get("CS231N_LIT_LAYERS", 1)))), deadline=None, derandomize=True, phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck))
    @given(layers(kernels)[kind])
    def check(case): case.check(kernels)
    check()


@each
def test_layers_with_nothing_in_them(kernels):
    for case in NOTHING: case.check(kernels)


# ((C, H, W), w, stride, pad): heights that bands divide and that they do not, borders, strides beyond the filter
FEW = [((5, 18, 20), (7, 5, 5, 5), 1, 2), ((16, 13, 11), (17, 16, 3, 3), 1, 1), ((3, 31, 22), (6, 3, 7, 5), 2, 3), ((7, 21, 9), (9, 7, 1, 1), 1, 0),
       ((2, 33, 9), (3, 2, 2, 3), 3, 0), ((4, 9, 30), (26, 4, 6, 4), 1, 0), ((17, 10, 8), (16, 17, 3, 3), 1, 2), ((1, 1, 60), (5, 1, 1, 8), 1, 1)]


@each
@pytest.mark.parametrize("images, threads", [(1, 2), (1, 3), (1, 4), (2, 4), (3, 2), (3, 4)])
@pytest.mark.parametrize("x, w, stride, pad", FEW, ids=str)
def test_few_images_on_several_threads(kernels, images, threads, x, w, stride, pad):
    "An image is cut into bands of rows, and every result has the bits that it has on one thread."
    assert Team(threads=threads).bands(images, 10**9) * images % threads == 0
    for k, way in enumerate(name for name, way in kernels.ways.items() if way.supports((images, *x), w, stride, pad)):
        Conv((images, *x), w, stride, pad, way, dtype=["float32", "float64"][(k + images) % 2], threads=threads, eager=True, seed=k).check(kernels)


def store(a, byte):
    "Write a byte beside an array, where a kernel that goes too far would."
    ctypes.c_char.from_address(a.ctypes.data + byte).value = b"\0"


FAULTS = {"behind the results": ("beside", lambda out, x, w: store(out, out.nbytes)),
          "before the results": ("beside", lambda out, x, w: store(out, -1)),
          "behind an argument": ("beside", lambda out, x, w: store(x, x.nbytes)),
          "into an argument": ("argument", lambda out, x, w: w.__setitem__((0, 0, 0, 0), w[0, 0, 0, 0] * (1 + 1e-6))),
          "one result less": ("NaN", lambda out, x, w: out.__setitem__((-1, -1, -1, -1), np.nan)),
          "one result wrong": ("off by", lambda out, x, w: out.__setitem__((0, 0, 0, 0), out.max() * 1.001)),
          "wrong where there is one image": ("of one image", lambda out, x, w: out.__imul__(1 + 1e-7 * (len(x) == 1)))}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_noticed(fault, monkeypatch):
    conv = KERNELS[0].conv
    right, (message, spoil) = conv.conv_forward, FAULTS[fault]
    def wrong(x, w, *more, **ways):
        out = right(x, w, *more, **ways)
        spoil(out, x, w)
        return out
    monkeypatch.setattr(conv, "conv_forward", wrong)
    layer = (3, 2, 6, 7), (4, 2, 3, 3), 1, 1
    way = next(name for name, way in KERNELS[0].ways.items() if way.supports(*layer)) if "one image" in fault else None
    with pytest.raises(AssertionError, match=message): Conv(*layer, way).check(KERNELS[0])


def test_work_space_that_is_read_before_it_is_written_is_noticed(monkeypatch):
    conv = KERNELS[0].conv
    right = conv.conv_forward
    def wrong(*args, **ways):
        out = right(*args, **ways)
        out[0, 0, 0, 0] += conv.aligned(1, out.dtype)[0]
        return out
    monkeypatch.setattr(conv, "conv_forward", wrong)
    with pytest.raises(AssertionError, match="NaN"): Conv((2, 2, 6, 7), (4, 2, 3, 3), 1, 1).check(KERNELS[0])


def test_one_work_space_for_two_uses_is_noticed(monkeypatch):
    right = Memory.scratch_space
    monkeypatch.setattr(Memory, "scratch_space", lambda memory, n, dtype, use="room": right(memory, n, dtype))
    with pytest.raises(AssertionError, match="NaN"): Conv((2, 2, 6, 7), (4, 2, 3, 3), 1, 1).check(KERNELS[0])


def test_every_way_and_layout_is_drawn():
    "Random layers are not all of one kind."
    seen, ways = [], KERNELS[0].ways
    settings(max_examples=300, deadline=None, derandomize=True, phases=[Phase.generate])(given(layers(KERNELS[0])["conv"])(lambda case: seen.append(case)))()
    assert {case.way for case in seen} == {None, *ways} and len({case.layout for case in seen}) > 4
    assert {case.threads for case in seen} == {1, 2, 3, 4} and max(case.x[0] for case in seen) > 15
    assert any(case.stride > max(case.w[2:]) for case in seen) and any(case.w[2] > case.x[2] for case in seen) and any(case.spoilt for case in seen)
