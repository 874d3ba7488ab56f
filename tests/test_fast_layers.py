"""The compiled layers: that they are in use, agree with the naive ones, and survive threads, forks, odd arrays and missing modules."""
import importlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from cs231n_lit import fast_layers as fast
from cs231n_lit._threads import parallel
from cs231n_lit.convolution import conv_backward_naive, conv_forward_naive
from cs231n_lit.kernels.compiled import stale
from cs231n_lit.layer_utils import affine_relu_backward, affine_relu_forward
from cs231n_lit.layers import relu_backward, relu_forward
from cs231n_lit.pooling import max_pool_forward_naive
from cs231n_lit.spatial_norm import spatial_batchnorm_backward, spatial_batchnorm_forward

CAN_COMPILE = os.environ.get("CS231N_LIT_ISA") != "numpy"
compiled_only = pytest.mark.skipif(not fast._compiled, reason="the kernels are not compiled")


@pytest.fixture(autouse=True)
def two_threads():
    before = fast.get_num_threads()
    fast.set_num_threads(2)
    yield
    fast.set_num_threads(before)


def error(got, wanted):
    "The largest difference over the largest value."
    got, wanted = np.asarray(got, float), np.asarray(wanted, float)
    assert got.shape == wanted.shape
    return abs(got - wanted).max() / max(abs(wanted).max(), 1e-30) if wanted.size else 0


def run(code, **env):
    "Run Python code in a fresh process; its output."
    done = subprocess.run([sys.executable, "-W", "error::RuntimeWarning:cs231n_lit", "-c", code], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tested_install_is_compiled():
    if not CAN_COMPILE: pytest.skip("CS231N_LIT_ISA=numpy asks for no compiled kernels")
    status = fast.status()
    assert status["compiled"], "The compiled kernels are missing: pip install -e . (see fast_layers.status())"
    assert not status["stale"], f"{status['stale']} changed after being compiled: python setup.py build_ext --inplace"


def test_an_affine_layer_with_many_weights_is_compiled():
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(5, 2100)), rng.normal(size=(2100, 500)), rng.normal(size=500)
    out, cache = affine_relu_forward(x, w, b)
    np.testing.assert_array_equal(out, np.maximum(fast.affine_forward_fast(x, w, b)[0], 0))
    for got, wanted in zip(affine_relu_backward(out, cache), fast.affine_backward_fast(out, (x, w, b))): np.testing.assert_array_equal(got, wanted)


def test_a_cache_of_the_other_norm_is_refused():
    x, one = np.ones((2, 4, 3, 3)), np.ones(4)
    for forward, backward, args in ((fast.spatial_groupnorm_forward_fast, fast.spatial_batchnorm_backward_fast, (2, {})),
                                    (fast.spatial_batchnorm_forward_fast, fast.spatial_groupnorm_backward_fast, ({"mode": "train"},))):
        _, cache = forward(x, one, one, *args)
        with pytest.raises(ValueError, match="cache"): backward(x, cache)


@pytest.mark.parametrize("shape", [(0, 3), (5,), (3, 4, 50, 70), ()])
def test_relu_agrees(shape):
    x = np.random.default_rng(0).normal(size=shape)
    if x.size > 4: x.ravel()[:3] = np.nan, 0, -0.0
    out, cache = fast.relu_forward_fast(x)
    np.testing.assert_array_equal(out, relu_forward(x)[0])
    np.testing.assert_array_equal(fast.relu_backward_fast(x + 1, cache), relu_backward(x + 1, x))
    assert np.shape(out) == shape


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_go_through(bad):
    rng = np.random.default_rng(1)
    x, w, b, param = rng.normal(size=(2, 3, 6, 7)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4), {"stride": 1, "pad": 1}
    x[0, 1, 2, 3] = bad
    out, cache = fast.conv_forward_fast(x, w, b, param)
    wanted, naive_cache = conv_forward_naive(x, w, b, param)
    np.testing.assert_allclose(out, wanted, rtol=1e-10, atol=1e-12)
    ones = np.ones_like(out)
    for got, want in zip(fast.conv_backward_fast(ones, cache), conv_backward_naive(ones, naive_cache)):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_empty_batches_and_unusual_types():
    w, b = np.ones((4, 3, 3, 3)), np.ones(4)
    out, cache = fast.conv_forward_fast(np.zeros((0, 3, 8, 8)), w, b, {"stride": 1, "pad": 1})
    dx, dw, db = fast.conv_backward_fast(out, cache)
    assert out.shape == (0, 4, 8, 8) and dx.shape == (0, 3, 8, 8) and not dw.any() and not db.any()
    param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    out, cache = fast.max_pool_forward_fast(np.zeros((0, 3, 8, 8)), param)
    assert out.shape == (0, 3, 4, 4) and fast.max_pool_backward_fast(out, cache).shape == (0, 3, 8, 8)
    x = np.arange(128).reshape(2, 1, 8, 8)
    assert (fast.max_pool_forward_fast(x, param)[0] == max_pool_forward_naive(x, param)[0]).all()
    half = x.astype(np.float16)
    assert fast.max_pool_forward_fast(half, param)[0].dtype == np.float16
    assert fast.conv_forward_fast(half, np.ones((1, 1, 3, 3), np.float16), np.ones(1, np.float16), {"stride": 1, "pad": 1})[0].dtype == np.float16
    out, _ = fast.conv_forward_fast(x.astype(np.float32), np.ones((1, 1, 3, 3)), np.ones(1), {"stride": 1, "pad": 1})
    assert out.dtype == np.float64


def train_a_little(n=1):
    "Some numbers that depend on every kernel, in float64 and the same on any number of threads but for rounding."
    rng = np.random.default_rng(3)
    x, w, b = rng.normal(size=(8, 3, 20, 20)), rng.normal(size=(6, 3, 3, 3)), rng.normal(size=6)
    for _ in range(n):
        out, cache = fast.conv_forward_fast(x, w, b, {"stride": 1, "pad": 1})
        norm, norm_cache = fast.spatial_batchnorm_forward_fast(out, b, b, {"mode": "train"})
        pooled, pool_cache = fast.max_pool_forward_fast(norm, {"pool_height": 2, "pool_width": 2, "stride": 2})
        dnorm, dgamma, _ = fast.spatial_batchnorm_backward_fast(fast.max_pool_backward_fast(pooled, pool_cache), norm_cache)
        dx, dw, db = fast.conv_backward_fast(dnorm, cache)
    return np.concatenate([a.ravel() for a in (pooled, dgamma, dx, dw, db)])


def test_any_number_of_threads_gives_the_same_answer_and_the_same_bits_each_time():
    answers = {}
    for n in (1, 2, 3, 7):
        fast.set_num_threads(n)
        answers[n] = train_a_little()
        for _ in range(3): np.testing.assert_array_equal(train_a_little(), answers[n])
        assert error(answers[n], answers[1]) < 1e-12


def test_many_python_threads_at_once():
    wanted, failures = train_a_little(), []
    def work():
        try:
            for _ in range(5): np.testing.assert_array_equal(train_a_little(), wanted)
        except BaseException as e: failures.append(e)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads: t.start()
    for t in threads: t.join(60)
    assert not failures and not any(t.is_alive() for t in threads)


WORKER = """
import sys, multiprocessing
sys.path.insert(0, {tests!r})
from test_fast_layers import fast, train_a_little
def work(_): return train_a_little().sum()
if __name__ == "__main__":
    fast.set_num_threads(2)
    wanted = train_a_little().sum()
    with multiprocessing.get_context({method!r}).Pool(2) as pool: assert pool.map(work, range(4)) == [wanted] * 4
    assert train_a_little().sum() == wanted
    print("same")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_after_threads_were_used(method, tmp_path):
    if method == "fork" and not hasattr(os, "fork"): pytest.skip("no fork on this system")
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(tests=os.path.dirname(__file__), method=method))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "CS231N_LIT_NUM_THREADS": "2"})
    assert done.returncode == 0 and "same" in done.stdout, done.stderr


def test_errors_come_back_from_helpers_and_the_pool_works_on():
    def task(n0, n1, slot):
        time.sleep(.001)
        if n0 > 5: raise ArithmeticError(n0)
    with pytest.raises(ArithmeticError): parallel(task, 50)
    done = []
    parallel(lambda n0, n1, slot: done.extend(range(n0, n1)), 50)
    assert sorted(done) == list(range(50))


def test_an_interrupt_stops_the_hand_out_and_leaves_the_pool_usable():
    taken = []
    def task(n0, n1, slot):
        taken.append(n0)
        if slot == 0: raise KeyboardInterrupt
        time.sleep(.001)
    with pytest.raises(KeyboardInterrupt): parallel(task, 1000)
    count = len(taken)
    time.sleep(.02)
    assert len(taken) == count < 1000
    done = []
    parallel(lambda n0, n1, slot: done.extend(range(n0, n1)), 50)
    assert sorted(done) == list(range(50))


def test_slots_are_not_shared():
    fast.set_num_threads(4)
    busy = [threading.Lock() for _ in range(4)]
    def task(n0, n1, slot):
        assert busy[slot].acquire(blocking=False)
        time.sleep(.0005)
        busy[slot].release()
    parallel(task, 200)


@pytest.mark.parametrize("bad, kind", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError), (None, TypeError)])
def test_set_num_threads_refuses(bad, kind):
    with pytest.raises(kind, match="set_num_threads"): fast.set_num_threads(bad)


def test_environment_variables():
    show = "from cs231n_lit import fast_layers as f; print(f.status())"
    assert "'threads': 3" in run(show, CS231N_LIT_NUM_THREADS="3")
    for name, value in (("CS231N_LIT_NUM_THREADS", "two"), ("CS231N_LIT_NUM_THREADS", "0"), ("CS231N_LIT_ISA", "sparc")):
        with pytest.raises(AssertionError, match=f"{name} needs"): run(show, **{name: value})


CALL = """
import warnings, numpy as np
from cs231n_lit import fast_layers as f
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        out, cache = f.conv_forward_fast(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), np.ones(1), {"stride": 1, "pad": 1})
        f.conv_backward_fast(out, cache)
        out, cache = f.max_pool_forward_fast(out, {"pool_height": 2, "pool_width": 2, "stride": 2})
        f.max_pool_backward_fast(out, cache)
assert out.ravel().tolist() == [10, 10, 10, 10], out
print(f.status()["compiled"], [str(c.message) for c in caught])
"""


def test_without_compiled_modules_numpy_computes_the_same_and_one_warning_says_so():
    hide = "import sys\nfor k in ('conv', 'layers'):\n    for e in ('v1', 'v3', 'v4'): sys.modules[f'cs231n_lit.kernels._{k}_{e}'] = None\n"
    out = run(hide + CALL)
    assert out.startswith("False") and out.count("compiled kernels are missing") == 1 and "pip install" in out
    assert run(CALL, CS231N_LIT_ISA="numpy") == "False []\n"


def test_the_fallback_agrees_with_the_compiled_layers():
    code = "import sys; sys.path.insert(0, {!r}); from test_fast_layers import *; np.save({!r}, train_a_little())"
    wanted = train_a_little()
    out = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"fallback-{os.getpid()}.npy")
    try:
        run(code.format(os.path.dirname(__file__), out), CS231N_LIT_ISA="numpy")
        assert error(np.load(out), wanted) < 1e-12
    finally:
        if os.path.exists(out): os.remove(out)


@compiled_only
def test_a_stale_module_is_noticed(monkeypatch):
    assert stale() == []
    monkeypatch.setitem(fast._compiled, "layers", type("Old", (), {"SOURCE_HASH": "0", "SOURCES": ["traffic", "norms"], "__file__": fast._layer.__file__, "ISA": "", "COMPILER": ""}))
    assert stale() == ["layers"]


@compiled_only
def test_compiled_kernels_are_far_faster_than_interpreted_ones():
    pytest.importorskip("cython")
    slow = importlib.import_module("cs231n_lit.kernels.pooling")
    assert slow.pool_forward.__module__ == "cs231n_lit.kernels.pooling" and not slow.__file__.endswith(".so")
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    alone = lambda task, count, grain=1: task(0, count, 0)
    def seconds(module, repeats):
        start = time.perf_counter()
        for _ in range(repeats): module.pool_forward(x, 2, 2, 2, (2, 3, 8, 8), alone)
        return (time.perf_counter() - start) / repeats
    assert min(seconds(slow, 1) for _ in range(3)) > 20 * min(seconds(fast._layer, 20) for _ in range(3))


@compiled_only
def test_convolution_runs_at_the_rate_of_a_matrix_product():
    "The compiler trap of an unrolled inner loop costs a factor of 10 to 50; NumPy's product of the same size is the yardstick."
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(np.float32) for s in ((8, 32, 16, 16), (64, 32, 3, 3), (64,)))
    rows, columns = rng.normal(size=(64, 288)).astype(np.float32), rng.normal(size=(288, 2048)).astype(np.float32)
    def best(f):
        times = []
        for _ in range(15):
            start = time.perf_counter()
            f()
            times.append(time.perf_counter() - start)
        return min(times)
    ours, numpys = best(lambda: fast.conv_forward_fast(x, w, b, {"stride": 1, "pad": 1})), best(lambda: rows @ columns)
    assert ours < {"x86-64-v4": 5, "x86-64-v3": 6}.get(fast.status()["isa"], 12) * numpys


def test_step_in_place_refuses():
    w, frozen = np.ones(3), np.ones(3)
    frozen.flags.writeable = False
    for bad in (frozen, np.ones(6)[::2], w.astype(np.float16)): assert not fast.step_in_place("sgd", (bad, bad), (1.,))
    with pytest.raises(ValueError, match="^step_in_place: rule needs to be one of 'sgd'"): fast.step_in_place("adagrad", (w, w), (1.,))
    with pytest.raises(ValueError, match="^step_in_place: arrays needs 4 arrays for 'adam'; got 3"): fast.step_in_place("adam", (w, w, w), (1.,))


@compiled_only
@pytest.mark.parametrize("x_mean, x_std, dout_mean, dout_std", [(1e4, 1, 0, 1), (1e6, 1, 0, 1), (0, 1e19, 0, 1), (1e20, 1e18, 1e10, 1e15), (0, 1, 0, 1e30), (3, 1, 1e4, 1e3)])
@pytest.mark.parametrize("shape", [(7, 5, 17, 13), (2, 40, 11, 31), (100, 3, 1, 1)])
def test_gradients_of_batch_norm_hold_far_from_zero(shape, x_mean, x_std, dout_mean, dout_std):
    "Sums partly in float32 lose nothing: where x lies far from zero (dx itself is then computed with a rounded mean), where squares are beyond float32, where dout is large."
    rng = np.random.default_rng(231)
    x, dout = ((mean + std * rng.normal(size=shape)).astype(np.float32) for mean, std in ((x_mean, x_std), (dout_mean, dout_std)))
    gamma, beta = rng.normal(size=(2, shape[1])).astype(np.float32)
    got = fast.spatial_batchnorm_backward_fast(dout, fast.spatial_batchnorm_forward_fast(x, gamma, beta, {"mode": "train"})[1])
    exact = [a.astype(float) for a in (x, gamma, beta, dout)]
    _, cache = spatial_batchnorm_forward(*exact[:3], {"mode": "train"})
    for name, g, e in zip(("dx", "dgamma", "dbeta"), got, spatial_batchnorm_backward(exact[3], cache)):
        size = np.abs(e).max() if name == "dx" else np.abs(exact[3]).sum((0, 2, 3)).max()  # of what is added up
        np.testing.assert_allclose(g / size, e / size, rtol=0, atol=1e-6 + 1e-9 * x_mean * (name == "dx") * (x_std == 1), err_msg=name)
