"""Around the compiled kernels: memory that is not theirs, interrupts, forks and threads in the middle of work. `make sanitize` does the rest."""
import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cs231n_lit import fast_layers as fast
from cs231n_lit import optim

TESTS = Path(__file__).resolve().parent
PRELUDE = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from test_fast_layers import *; fast.set_num_threads(3)\n"
compiled_only = pytest.mark.skipif(not fast._compiled, reason="the kernels are not compiled")


def run(tmp_path, code, **env):
    "Run a script that can start processes; its output."
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + code, encoding="utf8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


INTERRUPTED = """
import random, signal
rng, wanted, hits = random.Random(0), train_a_little(), 0
x, w, b = np.ones((64, 8, 32, 32)), np.ones((16, 8, 5, 5)), np.ones(16)
for _ in range(40):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(.001, .03))
        while True:
            out, cache = fast.conv_forward_fast(x, w, b, {"stride": 1, "pad": 2})
            fast.conv_backward_fast(out, cache)
            fast.max_pool_forward_fast(out, {"pool_height": 2, "pool_width": 2, "stride": 2})
    except KeyboardInterrupt: hits += 1
    np.testing.assert_array_equal(train_a_little(), wanted)
print(hits, threading.active_count())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such signals on this system")
def test_interrupts_at_any_moment_leave_everything_usable(tmp_path):
    "Ctrl-C comes as KeyboardInterrupt, the next calls give the same bits, and no threads pile up."
    code = "import signal; signal.signal(signal.SIGALRM, signal.default_int_handler)\n" + INTERRUPTED
    assert run(tmp_path, code) == "40 3\n"


FORKED_AT_WORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and newer warn of forks while threads run
wanted, stop = train_a_little(), threading.Event()
def work():
    while not stop.is_set(): train_a_little()
threads = [threading.Thread(target=work) for _ in range(2)]
for t in threads: t.start()
def child(generations):
    pid = os.fork()
    if pid: return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        np.testing.assert_array_equal(train_a_little(), wanted)
        code = child(generations - 1) if generations else 0
    finally: os._exit(code)
codes = [child(1) for _ in range(10)]
stop.set()
for t in threads: t.join()
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks_while_threads_are_at_work_and_forks_of_forks(tmp_path):
    assert run(tmp_path, FORKED_AT_WORK) == f"{[0] * 10}\n"


def test_threads_that_change_the_number_of_threads(tmp_path):
    "Many Python threads call the layers while others change how many threads one call may use."
    code = """
wanted, failures, stop = train_a_little(), [], threading.Event()
def change():
    while not stop.is_set():
        for n in (1, 4, 2, 3): fast.set_num_threads(n)
def work():
    try:
        for _ in range(8): assert error(train_a_little(), wanted) < 1e-12
    except BaseException as e: failures.append(e)
changer, workers = threading.Thread(target=change), [threading.Thread(target=work) for _ in range(6)]
for t in (changer, *workers): t.start()
for t in workers: t.join()
stop.set()
print(failures)
"""
    assert run(tmp_path, code) == "[]\n"


@compiled_only
def test_images_of_any_size_come_to_an_end(tmp_path):
    "Winograd's way works on bands of 2 x 2 results: images with less than a band, a band, and many bands, tall and wide."
    code = """
for H, W in ((4, 40), (40, 4), (15, 15), (24, 24), (32, 32), (65, 17), (17, 65), (3, 130), (130, 3)):
    x, w, b = np.ones((2, 17, H, W)), np.ones((18, 17, 3, 3)), np.zeros(18)
    out, cache = fast.conv_forward_fast(x, w, b, {"stride": 1, "pad": 1})
    dx, dw, db = fast.conv_backward_fast(np.ones_like(out), cache)
    assert abs(out[:, :, 1:-1, 1:-1] - 153).max() < 1e-9 and abs(dx[:, :, 1:-1, 1:-1] - 162).max() < 1e-9, (H, W)
    assert db[0] == 2 * H * W and abs(dw[0, 0] - 2 * np.outer([H - 1, H, H - 1], [W - 1, W, W - 1])).max() < 1e-9, (H, W)
print("done")
"""
    assert run(tmp_path, code) == "done\n"


def unaligned(a):
    "The same numbers at an odd address, writeable."
    return np.ndarray(a.shape, a.dtype, bytearray(b"." + a.tobytes()), offset=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unaligned_arrays_are_copied_before_the_kernels_see_them(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(dtype) for s in ((2, 4, 8, 8), (4, 4, 3, 3), (4,)))
    seen = lambda cache: [a for a in cache if isinstance(a, np.ndarray)]
    for forward, backward, args in ((fast.conv_forward_fast, fast.conv_backward_fast, (x, w, b, {"stride": 1, "pad": 1})),
                                    (fast.max_pool_forward_fast, fast.max_pool_backward_fast, (x, {"pool_height": 2, "pool_width": 2, "stride": 2})),
                                    (fast.spatial_batchnorm_forward_fast, fast.spatial_batchnorm_backward_fast, (x, b, b, {"mode": "train"})),
                                    (fast.spatial_groupnorm_forward_fast, fast.spatial_groupnorm_backward_fast, (x, b, b, 2, {}))):
        out, cache = forward(*args)
        odd, odd_cache = forward(*(unaligned(a) if isinstance(a, np.ndarray) else a for a in args))
        np.testing.assert_array_equal(odd, out)
        assert all(a.flags.aligned for a in seen(odd_cache))
        for got, wanted in zip(backward(unaligned(out), odd_cache), backward(out, cache)): np.testing.assert_array_equal(got, wanted)
    for rule in (optim.sgd, optim.sgd_momentum, optim.rmsprop, optim.adam):
        got, wanted = (rule(place(x.copy()), place(x))[0] for place in (unaligned, np.array))
        np.testing.assert_array_equal(got, wanted)
    kept = x.copy()
    assert not fast.step_in_place("sgd", (unaligned(x), x), (1.,)) and (x == kept).all()


@pytest.mark.parametrize("short", range(4))
def test_a_step_in_place_never_leaves_its_arrays(short):
    "Arrays of different sizes are not for the kernels."
    arrays = [np.ones(100) for _ in range(4)]
    arrays[short] = np.ones(3)
    assert not fast.step_in_place("adam", tuple(arrays), (1e-3, .9, .999, 1e-8, 1))
    assert all((a == 1).all() for a in arrays)


def test_a_changed_cache_does_not_send_a_gradient_out_of_the_image():
    "Pooling remembers where its maxima were; in a cache that was changed since, they are looked for again."
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 8))
    _, cache = fast.max_pool_forward_fast(x, {"pool_height": 5, "pool_width": 5, "stride": 1})
    _, fresh = fast.max_pool_forward_fast(x, {"pool_height": 2, "pool_width": 2, "stride": 2})
    cache[1].update(pool_height=2, pool_width=2, stride=2)
    dout = np.ones((1, 1, 4, 4))
    np.testing.assert_array_equal(fast.max_pool_backward_fast(dout, cache), fast.max_pool_backward_fast(dout, fresh))


def test_relu_takes_types_that_have_no_kernel():
    x = np.array([-1, 0, 2], np.float32)
    dx = fast.relu_backward_fast(np.ones(3, np.longdouble), x)
    assert dx.dtype == np.longdouble and dx.tolist() == [0, 0, 1]


@compiled_only
def test_nothing_is_kept_after_a_call():
    "Neither objects nor arrays pile up."
    from test_fast_layers import train_a_little
    train_a_little(5)
    gc.collect()
    blocks = sys.getallocatedblocks()
    tracemalloc.start()
    try:
        train_a_little(3)
        before = tracemalloc.get_traced_memory()[0]
        train_a_little(100)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally: tracemalloc.stop()
    gc.collect()
    assert grown < 5e6 and sys.getallocatedblocks() - blocks < 400
