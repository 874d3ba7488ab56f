"""Runs the compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer: random calls, whose answers the readable layers check.

    python scripts/sanitize.py             2,000 cases for each instruction set of this processor, then planted errors
    python scripts/sanitize.py --isa x86-64-v3 --first 17 --cases 1   one case again

The kernels are built into build/sanitize, with GCC. Half of the cases give every work space exactly the size asked for and
fill it with NaN, so that a step past its end, or a number read before it was written, does not go unnoticed.
"""
import argparse
import faulthandler
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "build" / "sanitize"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1"
PLANTED = {"heap-buffer-overflow": ("write", "read", "write small"), "misaligned address": ("unaligned",)}


def build():
    "The package with sanitized kernels, in build/sanitize; the path of the sanitizer's library."
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", BUILT, "--build-temp", BUILT / "temp"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "CS231N_LIT_CFLAGS": FLAGS})
    if done.returncode or "left out" in done.stderr: sys.exit(f"The kernels could not be built:\n{done.stdout}{done.stderr}")
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC")
    library = subprocess.run([*compiler.split(), "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(library): sys.exit(f"{compiler} has no libasan.so: on Debian and Ubuntu, install gcc")
    return library


def run(library, isa, *arguments):
    "This script in a process of its own, with the sanitizers and one instruction set."
    env = {**os.environ, "LD_PRELOAD": library, "PYTHONPATH": str(BUILT), "PYTHONMALLOC": "malloc", "CS231N_LIT_ISA": isa,
           "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, __file__, "--isa", isa, "--inside", *arguments], env=env, capture_output=True, text=True)


def main(args):
    start, library, findings, total = time.time(), build(), 0, 0
    built = time.time()
    sys.path.insert(0, str(ROOT))
    from cs231n_lit.fast_layers import _ISAS, _choices
    for isa in [args.isa] if args.isa else [isa for isa, (ending, _) in _ISAS.items() if ending in _choices()]:
        done = run(library, isa, "--first", str(args.first), "--cases", str(args.cases))
        print(done.stdout, end="", flush=True)
        total += args.cases
        if done.returncode:
            findings += 1
            print(f"{isa}: a finding\n{done.stdout[-200:]}{done.stderr[-6000:]}")
        for message, errors in PLANTED.items():
            for error in errors:
                done = run(library, isa, "--planted", error)
                if done.returncode and message in done.stderr and "kernels" in done.stderr: continue
                findings += 1
                print(f"{isa}: the planted error {error!r} was not noticed\n{done.stderr[-3000:]}")
    print(f"{total} cases, {findings} findings; {built - start:.0f} s to build, {time.time() - built:.0f} s to run")
    sys.exit(findings > 0)


def plant(error):
    "Lets a kernel do what it must not do."
    import numpy as np
    from cs231n_lit.fast_layers import _layer
    n = 3 if error == "write small" else 5000
    w, dw = np.ones(n), np.ones(n + 1)
    if error == "read": w, dw = dw, w
    if error == "unaligned": w = np.frombuffer(bytearray(8 * n + 9), offset=1)
    _layer.sgd_step(w, dw, 1., 0, n + 1)


class Fuzz:
    "Random calls of the fast layers, compared with the readable ones."
    LIMIT = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-12}

    def __init__(self):
        sys.path[:0] = [str(ROOT / "tests")]
        import numpy as np
        from cs231n_lit import _threads, fast_layers, layer_utils, layers, convolution, normalization, optim, pooling, spatial_norm
        from layouts import layouts
        assert str(BUILT) in fast_layers.__file__ and fast_layers._compiled
        self.np, self.fast, self.layouts, self.parallel = np, fast_layers, [f for name, f in layouts.items() if name != "a list"], _threads.parallel
        self.layers, self.utils, self.norms, self.optim = layers, layer_utils, spatial_norm, optim
        self.convolution, self.pooling = convolution, pooling
        self.aligned, self.scratch_space = fast_layers._conv.aligned, fast_layers._conv.scratch_space
        self.kinds = [self.conv] * 8 + [self.pool] * 4 + [self.batchnorm, self.groupnorm] * 2 + [self.relu, self.affine] + [self.rule] * 2 + [self.sandwich] * 3

    def case(self, number):
        self.rng = self.np.random.default_rng(number)
        self.dtype = self.np.dtype(self.rng.choice(["float32", "float64", "float16"], p=[.48, .48, .04]))
        self.odd = self.rng.random() < .5     # unusual layouts
        self.mad = self.rng.random() < .1     # NaN and infinities
        self.fast.set_num_threads(int(self.rng.integers(1, 4)))
        self.tight(self.rng.random() < .5)
        kind = self.kinds[self.rng.integers(len(self.kinds))]
        try:
            with self.np.errstate(invalid="ignore"): kind()
        except Exception as e: raise RuntimeError(f"case {number}, {kind.__name__}, {self.dtype}: {e}") from e
        return kind.__name__

    def tight(self, yes):
        "Work space of exactly the size asked for, full of NaN, and threads even for little work; or everything as it is."
        def filled(n, dtype, unit=64): return self.np.full(n, self.np.nan, dtype)
        self.fast._conv.aligned, self.fast._conv.scratch_space = (filled, filled) if yes else (self.aligned, self.scratch_space)
        self.fast.parallel = (lambda task, count, grain=1: self.parallel(task, count)) if yes else self.parallel

    def draw(self, *shape, spoil=False):
        a = self.rng.normal(size=shape).astype(self.dtype)
        if spoil and self.mad: a[self.rng.random(shape) < .02] = self.rng.choice([self.np.nan, self.np.inf, -self.np.inf])
        return self.rng.choice(self.layouts)(a) if self.odd and a.size and a.ndim and self.rng.random() < .5 else a

    def size(self, low, high):
        "A size; 0 or 1 more often than not by chance."
        return int(self.rng.choice([self.rng.integers(low, high), 1, 0], p=[.94, .05, .01]))

    def compare(self, got, want, like, *terms):
        "Each array of got against that of want, computed in float64; `terms` numbers were added up for one of its own."
        np = self.np
        dtype = np.result_type(*(np.asarray(a).dtype for a in like)).newbyteorder("=")
        for i, (g, w, n) in enumerate(zip(got, want, terms, strict=True)):
            if g.shape != w.shape or g.dtype != dtype: raise AssertionError(f"result {i} is {g.dtype} {g.shape}, not {dtype} {w.shape}")
            if not (np.isnan(g) == np.isnan(w)).all() or not (g[np.isinf(w)] == w[np.isinf(w)]).all(): raise AssertionError(f"result {i}: other NaN or infinities")
            fine = np.isfinite(w)
            error, scale = abs(g[fine] - w[fine]).max(initial=0), max(abs(w[fine]).max(initial=0), n**.5)
            if not error <= self.LIMIT[min(dtype, self.dtype).name] * scale: raise AssertionError(f"result {i} {w.shape}: off by {error / scale:.1e}")

    def exactly(self, *arrays): return [self.np.asarray(a).astype(float) for a in arrays]

    def refused(self, call):
        "ValueError, as is right."
        try: call()
        except ValueError: return
        raise AssertionError("a filter larger than the image was taken")

    def conv(self):
        rng, way = self.rng, self.rng.choice(["any", "small", "winograd", "pointwise"], p=[.5, .2, .15, .15])
        if way == "winograd": (HH, WW, S), P, C, F, more = (3, 3, 1), rng.integers(0, 3), rng.integers(16, 36), rng.integers(16, 70), 38
        elif way == "pointwise": (HH, WW, S), P, C, F, more = (1, 1, 1), 0, rng.integers(5, 40), rng.integers(5, 70), 9
        else: (HH, WW, S), P, C, F, more = rng.integers(1, 6, 3), rng.integers(0, 4), self.size(1, 18), self.size(1, 40), int(rng.choice([12, 40]))
        if way == "small": C, more = self.size(1, 71), 6
        N, H, W = self.size(1, 41 if way == "small" else 6), max(0, HH - 2 * P + rng.integers(-1, more)), max(0, WW - 2 * P + rng.integers(-1, more))
        x, w, b = self.draw(N, C, H, W, spoil=True), self.draw(F, C, HH, WW), self.draw(F)
        param, fast = {"stride": int(S), "pad": int(P)}, self.fast
        if HH > H + 2 * P or WW > W + 2 * P: return self.refused(lambda: fast.conv_forward_fast(x, w, b, param))
        out, cache = fast.conv_forward_fast(x, w, b, param)
        dout = self.draw(*out.shape, spoil=True)
        X, Wt, B, D = self.exactly(x, w, b, dout)
        if out.size < 1500: forward, backward = self.convolution.conv_forward_naive, self.convolution.conv_backward_naive
        else: forward = lambda *a: (fast._conv_forward_numpy(X, Wt, B, S, P), None); backward = lambda *a: fast._conv_backward_numpy(D, X, Wt, S, P, True)
        want, exact_cache = forward(X, Wt, B, param)
        grads = backward(D, exact_cache)
        self.compare([out], [want], (x, w, b), C * HH * WW)
        terms = N * out.shape[2] * out.shape[3]
        self.compare(fast.conv_backward_fast(dout, cache), grads, (x, w, b, dout), F * HH * WW, terms, terms)
        self.compare(fast.conv_backward_fast(dout, cache, need_dx=False)[1:], grads[1:], (x, w, b, dout), terms, terms)

    def pool(self):
        rng, fast = self.rng, self.fast
        (HH, WW, S), N, C = rng.integers(1, 6, 3), self.size(1, 5), self.size(1, 9)
        x = self.draw(N, C, HH + rng.integers(-1, 9), WW + rng.integers(-1, 30), spoil=True)
        param, shape = {"pool_height": int(HH), "pool_width": int(WW), "stride": int(S)}, self.np.shape(x)
        if HH > shape[2] or WW > shape[3]: return self.refused(lambda: fast.max_pool_forward_fast(x, param))
        out, cache = fast.max_pool_forward_fast(x, param)
        want, naive_cache = self.pooling.max_pool_forward_naive(*self.exactly(x), param)
        dout = self.draw(*out.shape)
        dx = self.pooling.max_pool_backward_naive(*self.exactly(dout), naive_cache)
        self.compare([out], [want], [x], 1)
        self.compare([fast.max_pool_backward_fast(dout, cache), fast.max_pool_backward_fast(dout, tuple(cache))], [dx] * 2, [x, dout], 1, 1)

    def norm(self, name, C, between, plain, terms):
        "Both directions of a norm."
        x, gamma, beta = self.draw(*plain), self.draw(C), self.draw(C)
        out, cache = getattr(self.fast, f"spatial_{name}_forward_fast")(x, gamma, beta, *between())
        want, slow_cache = getattr(self.norms, f"spatial_{name}_forward")(*self.exactly(x, gamma, beta), *between())
        dout = self.draw(*out.shape)
        grads = getattr(self.fast, f"spatial_{name}_backward_fast")(dout, cache)
        wanted = getattr(self.norms, f"spatial_{name}_backward")(*self.exactly(dout), slow_cache)
        self.compare([out], [want], [x, gamma, beta], 1)
        self.compare(grads, wanted, [x, gamma, beta], 100, 100 * terms, 100 * terms)

    def batchnorm(self):
        N, C, H, W = self.size(1, 6), int(self.rng.integers(1, 9)), *self.rng.integers(1, 14, 2)
        mode = self.rng.choice(["train", "test"])
        state = {} if mode == "train" else {"running_mean": self.draw(C), "running_var": self.np.ones(C, self.dtype)}
        self.norm("batchnorm", C, lambda: ({"mode": str(mode), "eps": .1, **state},), (N, C, H, W), N * H * W)

    def groupnorm(self):
        G, per, N, H, W = int(self.rng.integers(1, 5)), int(self.rng.integers(1, 5)), self.size(1, 6), *self.rng.integers(1, 14, 2)
        self.norm("groupnorm", G * per, lambda: (G, {"eps": .1}), (N, G * per, H, W), N * H * W)

    def relu(self):
        shape = [self.size(1, 40) for _ in range(self.rng.integers(0, 4))]
        x, dout = self.draw(*shape, spoil=True), self.draw(*shape)
        out, cache = self.fast.relu_forward_fast(x)
        want, slow_cache = self.layers.relu_forward(*self.exactly(x))
        self.compare([out], [want], [x], 1)
        self.compare([self.fast.relu_backward_fast(dout, cache)], [self.layers.relu_backward(*self.exactly(dout), slow_cache)], [x, dout], 1)

    def affine(self):
        N, D, M = self.size(1, 120), int(self.rng.integers(1, 120)), int(self.rng.integers(2, 120))
        x, w, b = self.draw(N, D), self.draw(D, M), self.draw(M)
        out, cache = self.utils.affine_relu_forward(x, w, b)
        X, Wt, B = self.exactly(x, w, b)
        want = self.np.maximum(X @ Wt + B, 0)
        self.compare([out], [want], [x, w, b], D)
        dout = self.draw(N, M)
        da = self.exactly(dout)[0] * (out > 0)
        self.compare([self.fast.affine_forward_fast(x, w, b)[0]], [X @ Wt + B], [x, w, b], D)
        self.compare(self.fast.affine_backward_fast(da.astype(out.dtype), (x, w, b)), [da @ Wt.T, X.T @ da, da.sum(0)], [x, w, b, dout], M, N, N)
        self.compare(self.utils.affine_relu_backward(dout, cache), [da @ Wt.T, X.T @ da, da.sum(0)], [x, w, b, dout], M, N, N)
        if N:
            loss, dscores = self.layers.softmax_loss(self.np.asarray(out), self.rng.integers(0, M, N))
            assert self.np.isfinite(loss) and abs(dscores.sum()) < 1e-2

    def rule(self):
        if self.dtype == "float16": self.dtype = self.np.dtype("float32")  # 1e-8 is 0 in float16: the rules take the smallest number, the comparison does not
        shape = [self.size(1, 60) for _ in range(self.rng.integers(0, 4))]
        name = self.rng.choice(["sgd", "sgd_momentum", "rmsprop", "adam"])
        w, rule = self.draw(*shape), getattr(self.optim, name)
        slow, config, slow_config = self.exactly(w)[0], {}, {}
        compiled, dtype = self.fast._compiled, self.np.asarray(w).dtype
        for _ in range(3):
            dw = self.draw(*shape)
            w, config = rule(w, dw, config)
            self.fast._compiled = {}
            slow, slow_config = rule(slow, *self.exactly(dw), slow_config)
            self.fast._compiled = compiled
            self.compare([w], [slow], [self.np.empty(0, dtype)], 1)

    def sandwich(self):
        "The combined layers, with the compiled kernels and without."
        rng, compiled, name = self.rng, self.fast._compiled, self.rng.choice(["conv_relu", "conv_bn_relu", "conv_relu_pool"])
        N, C, F, H, W = self.size(1, 4), *rng.integers(1, 20, 2), *rng.integers(4, 12, 2)
        x, w, b, conv = self.draw(N, C, H, W), self.draw(F, C, 3, 3), self.draw(F), {"stride": 1, "pad": 1}
        between = {"conv_relu": lambda: (conv,), "conv_relu_pool": lambda: (conv, {"pool_height": 2, "pool_width": 2, "stride": 2}),
                   "conv_bn_relu": lambda: (gamma, beta, conv, {"mode": "train", "eps": .1})}[name]
        gamma, beta = self.draw(F), self.draw(F)
        forward, backward = (getattr(self.utils, f"{name}_{way}") for way in ("forward", "backward"))
        out, cache = forward(x, w, b, *between())
        dout = self.draw(*out.shape)
        grads = backward(dout, cache)
        assert all(self.np.isfinite(a).all() for a in (out, *grads)) and [g.shape for g in grads[:3]] == [self.np.shape(a) for a in (x, w, b)]
        again = backward(dout, cache)
        assert all((a == b).all() for a, b in zip(grads, again)), "another answer the second time"
        self.fast._compiled = {}
        try: want = forward(*self.exactly(x, w, b), *between())[0]
        finally: self.fast._compiled = compiled
        like = (x, w, b, gamma, beta) if name == "conv_bn_relu" else (x, w, b)
        self.compare([out], [want], like, 9 * C)


def inside(args):
    "What runs with the sanitizers loaded."
    if args.planted: return plant(args.planted)
    fuzz, start, count = Fuzz(), time.time(), {}
    for i in range(args.first, args.first + args.cases):
        faulthandler.dump_traceback_later(120, exit=True)  # a case that hangs is a finding, too
        name = fuzz.case(i)
        count[name] = count.get(name, 0) + 1
    print(f"{args.isa}: {args.cases} cases in {time.time() - start:.0f} s: {', '.join(f'{n} {k}' for k, n in sorted(count.items()))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=2000, help="random cases for each instruction set")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--isa", help="only this instruction set")
    parser.add_argument("--planted", help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    (inside if args.inside else main)(args)
