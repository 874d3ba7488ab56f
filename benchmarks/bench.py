"""Every fast layer beside NumPy, PyTorch (as it is, with channels last, and compiled by torch.compile) and the naive loops.

    python benchmarks/bench.py [--only conv/v1 pool …] [--visits 2] [--rounds 3] [--torch-python PATH] [--out FILE]

In one run, or in pieces: `--only pool norm step`, and later `--only conv/v --add`, which keeps what the file has of other cases. Each case
is compared within its piece.

Each implementation runs in a process of its own, one for each number of threads. All are alive at once and take turns, a few calls
at a time, so that whatever else the machine does hits all of them alike. Each case is visited several times, minutes apart, because
others may take a core of the machine for longer than one visit. Only ratios taken from one run mean anything. A turn begins with a
pause, because the threads of the one before may still spin, and calls that do not count. All processes start with the C library
told to keep freed memory (MALLOC_*; it ignores a first threshold above 32 MB), without which PyTorch is up to three times slower on
some cases.
Writes OUT.json, which the pages read and draw, and prints a table.
"""
import argparse
import atexit
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
CONV = {  # N C H W, F HH WW, stride, pad
    "c1": ((100, 3, 31, 31), (25, 3, 3), 2, 1), "c2": ((50, 3, 32, 32), (32, 7, 7), 1, 3),
    "v1": ((64, 32, 16, 16), (64, 3, 3), 1, 1), "v2": ((64, 64, 16, 16), (128, 3, 3), 1, 1),
    "v3": ((32, 128, 8, 8), (256, 3, 3), 1, 1), "p": ((64, 64, 16, 16), (128, 1, 1), 1, 0)}
POOL = {"A": ((100, 3, 32, 32), 2, 2), "B": ((50, 32, 32, 32), 2, 2), "C": ((64, 64, 33, 33), 3, 2)}  # images, window, stride
NORM = (64, 32, 32, 32)
PAUSE = .1  # seconds; OpenMP's and OpenBLAS's threads sleep after less
WARM = .15  # seconds; a core that slept takes up to a tenth of a second until it works at its full speed again, above all in a virtual machine
EPOCH = 98  # steps timed of an epoch's 980
BATCH = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
ALONE = {"v1": CONV["v1"], "v2": CONV["v2"], "m1": ((1, 32, 32, 32), (64, 5, 5), 1, 2), "m2": ((1, 3, 64, 64), (32, 7, 7), 1, 3), "m3": ((1, 128, 32, 32), (128, 1, 1), 1, 0)}


def all_cases():
    "Name of each case: kind, shape's name, direction, type."
    cases = [f"conv/{name}/{part}/{dtype}" for dtype in ("float32", "float64") for name in CONV for part in ("forward", "backward")]
    cases += [f"pool/{name}/{part}/float32" for name in POOL for part in ("forward", "backward")]
    cases += [f"norm/batch/{part}/float32" for part in ("forward", "backward")]
    cases += ["step/adam/both/float32", "step/adam_fused/both/float32"]
    cases += [f"alone/{name}/{part}/float32" for name in ALONE for part in ("forward", "backward")]
    return cases + [f"batch/{n}/forward/float32" for n in BATCH] + ["epoch/cifar10/both/float32", "sweep/16/both/float32"]


def case_conv(kind, name):
    "The convolution behind a case; `batch` is v1 with another N, `alone` is for a single image."
    if kind == "conv": return CONV[name]
    (_, *chw), *rest = CONV["v1"] if kind == "batch" else ALONE[name]
    return (int(name) if kind == "batch" else 1, *chw), *rest


COMPILED = [f"{case}/{part}/float32" for case in ("conv/v1", "pool/B", "norm/batch") for part in ("forward", "backward")] + ["step/adam/both/float32", "step/adam_fused/both/float32"]


def operations(case):
    "Arithmetic operations, and the fewest bytes that have to move: each input read once, each output written once."
    kind, name, part, dtype = case.split("/")
    size = 4 if dtype == "float32" else 8
    if kind in ("conv", "batch", "alone"):
        (N, C, H, W), (F, HH, WW), S, P = case_conv(kind, name)
        places = N * ((H + 2*P - HH) // S + 1) * ((W + 2*P - WW) // S + 1)
        flops, x, w, out = 2 * places * F * C * HH * WW, N * C * H * W, F * C * HH * WW, places * F
        return (flops, size * (x + w + out)) if part == "forward" else (2 * flops, size * (2*x + 2*w + out))
    if kind == "pool":
        (N, C, H, W), K, S = POOL[name]
        out = N * C * ((H - K) // S + 1) * ((W - K) // S + 1)
        return (out * K * K, 4 * (N*C*H*W + out)) if part == "forward" else (out, 4 * (N*C*H*W + out))
    if kind == "norm":
        n = NORM[0] * NORM[1] * NORM[2] * NORM[3]
        return (7 * n, 4 * 2 * n) if part == "forward" else (9 * n, 4 * 3 * n)
    return 0, 0


def cifar10():
    "49,000 pictures and labels: CIFAR-10's where CS231N_LIT_CIFAR10 says they are (binary version), else noise of the same shape."
    import numpy as np
    folder = os.environ.get("CS231N_LIT_CIFAR10")
    if not folder:
        rng = np.random.default_rng(231)
        return rng.normal(size=(49000, 3, 32, 32)).astype(np.float32), rng.integers(0, 10, 49000)
    data = np.concatenate([np.fromfile(Path(folder) / f"data_batch_{i}.bin", np.uint8).reshape(-1, 3073) for i in range(1, 6)])[:49000]
    X = data[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32)
    return X - X.mean(0), data[:, 0].astype(np.int64)


# ---- workers: one process each ------------------------------------------------------------------------------------

def package_calls(case, naive=False):
    "Functions of no arguments that do the case's work once, and what the time is to be multiplied with."
    import numpy as np
    from cs231n_lit import convolution, fast_layers as fast, optim, pooling
    from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
    kind, name, part, dtype = case.split("/")
    rng = np.random.default_rng(231)
    new = lambda *shape: rng.normal(size=shape).astype(dtype)
    if kind in ("conv", "batch", "alone"):
        (N, C, H, W), (F, HH, WW), S, P = case_conv(kind, name)
        x, w, b, param = new(1 if naive else N, C, H, W), new(F, C, HH, WW), new(F), {"stride": S, "pad": P}
        forward, backward = ((convolution.conv_forward_naive, convolution.conv_backward_naive) if naive else (fast.conv_forward_fast, fast.conv_backward_fast))
        if part == "forward": return lambda: forward(x, w, b, param), N if naive else 1
        _, cache = fast.conv_forward_fast(x, w, b, param)
        dout = new(*_.shape)
        return lambda: backward(dout, cache), N if naive else 1
    if kind == "pool":
        (N, C, H, W), K, S = POOL[name]
        x, param = new(1 if naive else N, C, H, W), {"pool_height": K, "pool_width": K, "stride": S}
        forward, backward = ((pooling.max_pool_forward_naive, pooling.max_pool_backward_naive) if naive else (fast.max_pool_forward_fast, fast.max_pool_backward_fast))
        if part == "forward": return lambda: forward(x, param), N if naive else 1
        out, cache = fast.max_pool_forward_fast(x, param)
        dout = new(*out.shape)
        return lambda: backward(dout, cache), N if naive else 1
    if kind == "norm":
        x, gamma, beta, param = new(*NORM), new(NORM[1]), new(NORM[1]), {"mode": "train"}
        if part == "forward": return lambda: fast.spatial_batchnorm_forward_fast(x, gamma, beta, param), 1
        (_, cache), dout = fast.spatial_batchnorm_forward_fast(x, gamma, beta, param), new(*NORM)
        return lambda: fast.spatial_batchnorm_backward_fast(dout, cache), 1
    model = ThreeLayerConvNet(hidden_dim=500, dtype=np.float32)
    X, y, configs = new(50, 3, 32, 32), rng.integers(0, 10, 50), {}
    def step(X=X, y=y):
        _, grads = model.loss(X, y)
        for p, w in model.params.items():
            model.params[p], configs[p] = optim.adam(w, grads[p], configs.get(p))
    return (step, 1) if kind == "step" else (one_epoch(step, *cifar10()), 980 / EPOCH)


def one_epoch(step, X, y):
    "A function that makes EPOCH of an epoch's 980 steps, with batches of 50 drawn at random."
    import numpy as np
    def epoch():
        rng = np.random.default_rng(231)
        for _ in range(EPOCH):
            batch = rng.choice(len(X), 50)
            step(X[batch], y[batch])
    return epoch


def sweep_calls(workers):
    "Sixteen short trials of a sweep, one thread each, on so many workers; the first call starts the workers' processes."
    import tempfile
    from cs231n_lit.sweep import sweep, train_net
    from functools import partial
    trials = [{"learning_rate": 1e-3, "num_filters": 8, "filter_size": 3, "hidden_dim": 50, "batch_size": 225, "num_train_samples": 100, "num_val_samples": 100}] * 16
    def run():
        with tempfile.TemporaryDirectory() as folder: sweep(partial(train_net, num_epochs=1), trials, out=folder, jobs=workers, verbose=False)
    return run, 1


def torch_calls(case, channels_last=False, compiled=False):
    "The same in PyTorch."
    import torch
    import torch.nn.functional as f
    from functools import partial
    if compiled:
        import torch._functorch.config
        torch._functorch.config.donated_buffer = False  # or a second backward pass would be refused
    kind, name, part, dtype = case.split("/")
    torch.manual_seed(231)
    place = dict(memory_format=torch.channels_last) if channels_last else {}
    new = lambda *shape: torch.randn(*shape, dtype=getattr(torch, dtype)).requires_grad_()
    images = lambda *shape: torch.randn(*shape, dtype=getattr(torch, dtype)).to(**place).requires_grad_()
    made = torch.compile if compiled else lambda f: f
    if kind in ("conv", "batch", "alone"):
        shape, (F, HH, WW), S, P = case_conv(kind, name)
        inputs = images(*shape), images(F, shape[1], HH, WW), new(F)
        forward = partial(made(partial(f.conv2d, stride=S, padding=P)), *inputs)
    elif kind == "pool":
        shape, K, S = POOL[name]
        inputs = images(*shape),
        forward = partial(made(lambda x: f.max_pool2d(x, K, S)), *inputs)
    elif kind == "norm":
        inputs, mean, var = (images(*NORM), new(NORM[1]), new(NORM[1])), torch.zeros(NORM[1]), torch.zeros(NORM[1])
        forward = partial(made(lambda x, gamma, beta: f.batch_norm(x, mean, var, gamma, beta, True)), *inputs)
    else:
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 32, 7, padding=3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
                                  torch.nn.Linear(8192, 500), torch.nn.ReLU(), torch.nn.Linear(500, 10)).to(**place)
        net, adam = made(net), torch.optim.Adam(net.parameters(), fused=name == "adam_fused" or None)
        X, y = torch.randn(50, 3, 32, 32).to(**place), torch.randint(10, (50,))
        def step(X=X, y=y):
            adam.zero_grad(set_to_none=True)
            f.cross_entropy(net(X), y).backward()
            adam.step()
        return (step, 1) if kind == "step" else (one_epoch(step, *map(torch.from_numpy, cifar10())), 980 / EPOCH)
    if part == "forward": return forward, 1
    out = forward()
    dout = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True), 1


def ceiling_calls(case):
    "What the machine can do: a large matrix product, and copying memory far larger than the caches."
    import numpy as np
    from cs231n_lit._threads import parallel
    _, name, _, dtype = case.split("/")
    if name == "product":
        a = np.ones((1024, 1024), dtype)
        return lambda: a @ a, 1
    a, b = np.ones(1 << 24, np.float32), np.ones(1 << 24, np.float32)
    return lambda: parallel(lambda n0, n1, slot: np.copyto(a[n0:n1], b[n0:n1]), a.size, 1 << 20), 1


def worker(kind):
    "Read cases and numbers of calls from stdin, write times to stdout; the last case stays set up."
    answers, sys.stdout = sys.stdout, sys.stderr
    if kind.startswith("torch"):
        import torch
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    ready = None
    for line in sys.stdin:
        case, calls = json.loads(line)
        if case != ready:
            if case.startswith("ceiling"): call, times = ceiling_calls(case)
            elif case.startswith("sweep"): call, times = sweep_calls(int(os.environ["CS231N_LIT_NUM_THREADS"]))
            elif kind.startswith("torch"): call, times = torch_calls(case, kind == "torch-last", kind == "torch-compile")
            else: call, times = package_calls(case, kind == "naive")
            ready = case
        time.sleep(PAUSE)
        if kind != "naive" and not case.startswith("epoch"): warm_up(call)
        taken = []
        for _ in range(calls):
            start = time.perf_counter()
            call()
            taken.append(times * (time.perf_counter() - start))
        print(json.dumps(taken), file=answers, flush=True)


def warm_up(call):
    "Calls that do not count."
    end = time.perf_counter() + WARM
    call()
    while time.perf_counter() < end: call()


# ---- the parent ---------------------------------------------------------------------------------------------------

class Worker:
    "A process that times cases on request."
    def __init__(self, kind, threads, python=sys.executable, **env):
        n = str(threads)
        self.name, self.kind, self.threads = f"{kind}@{n}", kind, threads
        settings = dict(OMP_NUM_THREADS=n, MKL_NUM_THREADS=n, OPENBLAS_NUM_THREADS=n, CS231N_LIT_NUM_THREADS=n,
                        MALLOC_MMAP_THRESHOLD_=str(1 << 25), MALLOC_TRIM_THRESHOLD_=str(1 << 32), PYTHONWARNINGS="ignore")
        self.process = subprocess.Popen([python, __file__, "--worker", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env={**os.environ, **settings, **env})

    def time(self, case, calls):
        "Times of this many calls, in seconds."
        print(json.dumps([case, calls]), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line: raise RuntimeError(f"{self.name} ended at {case}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def has_torch(python):
    return subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0


def takes(implementation, case):
    "Is the case one for this implementation?"
    kind, name, _, dtype = case.split("/")
    if kind == "sweep": return implementation == "ours"
    if kind == "alone": return implementation in ("ours", "torch", "torch-last")
    if implementation in ("ours-avx2", "torch-avx2"): return kind == "conv" and dtype == "float32"
    if implementation == "torch-last": return kind in ("conv", "pool", "norm", "step") and dtype == "float32"
    if implementation == "torch-compile": return case in COMPILED
    if implementation == "naive": return kind in ("conv", "pool") and dtype == "float32"
    if kind == "epoch": return implementation in ("ours", "torch")
    if implementation == "numpy" and kind == "batch": return False
    return implementation.startswith("torch") or case != "step/adam_fused/both/float32"


def measured_once(worker, case):
    "Is it so slow that one visit has to do?"
    return worker.kind == "naive" or case.startswith(("epoch", "sweep"))


def visit(case, workers, rounds, taken, budget=.02, slow=.1):
    "Interleaved: each round, each worker makes as many calls as fit into the budget, a slow one none. Adds the times of each worker to `taken`, in seconds."
    workers = [w for w in workers if takes(w.kind, case) and not (w.name in taken and measured_once(w, case))]
    first = {w.name: w.time(case, 1) for w in workers}
    for name, times in first.items(): taken.setdefault(name, []).extend(times)
    for _ in range(rounds):
        for w in workers:
            if first[w.name][0] < slow: taken[w.name] += w.time(case, max(1, min(30, int(budget / first[w.name][0]))))


def summary(times):
    "Of times in seconds; the result is in milliseconds."
    return {"median": 1e3 * median(times), "min": 1e3 * min(times), "calls": len(times)}


def measure_ceilings(workers, best):
    "GFLOP/s of NumPy's matrix product and GB/s of copying (read and written), kept in `best` where they are higher than what it holds."
    for w in workers:
        for name, work in (("product", 2 * 1024**3), ("copy", 2 * 4 * 2**24)):
            if w.kind == "ours":
                key, rate = f"{name}@{w.threads}", work / min(w.time(f"ceiling/{name}/-/float32", 15)) / 1e9
                best[key] = max(rate, best.get(key, 0))


def ratio(results, case, ours, theirs, other=None, what="median"):
    "Our time over theirs; None where either is missing."
    mine, yours = results["cases"].get(case, {}).get(ours), results["cases"].get(other or case, {}).get(theirs)
    return mine[what] / yours[what] if mine and yours else None


def table(results):
    "The results as lines of text."
    names = list(dict.fromkeys(n for times in results["cases"].values() for n in times))
    threads = sorted({int(n.split("@")[1]) for n in names})
    lines = [" ".join(["case".ljust(26), *(n.rjust(12) for n in names), *(f"of torch@{t}".rjust(16) for t in threads), "@2 of @1".rjust(16)])]
    for case, times in results["cases"].items():
        cells = [f"{times[n]['median']:12.3f}" if n in times else " " * 12 for n in names]
        ours = "step/adam/both/float32" if case.startswith("step") else case
        for mine, other in *((f"ours@{t}", f"torch@{t}") for t in threads), ("ours@2", "ours@1"):
            r = [ratio(results, ours, mine, other, case, what) for what in ("median", "min")]
            cells.append(f"{r[0]:8.2f} ({r[1]:.2f})".rjust(16) if r[0] else " " * 16)
        lines.append(" ".join([case.ljust(26), *cells]))
    return "\n".join(lines + ["", "Milliseconds, medians; the naive loops did one image, times N. Last columns: our time over PyTorch's, and on two threads over one, medians (minima)."])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", default=[""], help="only cases whose name contains one of these, such as conv/v1 or pool")
    parser.add_argument("--add", action="store_true", help="keep what OUT.json has of other cases")
    parser.add_argument("--visits", type=int, default=2, help="how often to come back to each case")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each implementation at a visit")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--kinds", nargs="*", help="only these implementations: ours, torch, torch-last, torch-compile, numpy, naive, ours-avx2, torch-avx2")
    parser.add_argument("--torch-python", default=os.environ.get("TORCH_PYTHON", sys.executable), help="a Python that has PyTorch, if this one has not (or set TORCH_PYTHON)")
    parser.add_argument("--out", default=str(HERE.parent / "cs231n_lit/data/pages/results"), help="where to write OUT.json")
    parser.add_argument("--busy", type=int, default=0, help="processes that keep cores busy meanwhile, to see who minds")
    args = parser.parse_args()
    if args.worker: return worker(args.worker)

    kinds = {"ours": {}, "numpy": dict(CS231N_LIT_ISA="numpy"), "ours-avx2": dict(CS231N_LIT_ISA="x86-64-v3")}
    if has_torch(args.torch_python):
        avx2 = dict(ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2")
        kinds |= {"torch": {}, "torch-last": {}, "torch-compile": {}, "torch-avx2": avx2}
    else: print("PyTorch is not installed here: no comparison with it (see --torch-python).")
    if "avx512f" not in (cpu.read_text() if (cpu := Path("/proc/cpuinfo")).exists() else ""): kinds = {k: env for k, env in kinds.items() if "avx2" not in k}  # they would be the same twice
    cases = {case: {} for case in all_cases() if any(part in case for part in args.only)}
    wanted = [(k, t) for t in args.threads for k in kinds] + [("naive", 1)]
    wanted = [(k, t) for k, t in wanted if (k in args.kinds if args.kinds else True) and (k == "ours" or any(takes(k, case) for case in cases))]
    workers = [Worker(k, t, args.torch_python if k.startswith("torch") else sys.executable, **kinds.get(k, {})) for k, t in wanted]

    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    for p in busy: atexit.register(p.kill)
    results = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "busy": args.busy, "date": time.strftime("%Y-%m-%d"), "epoch_steps": EPOCH, "ceilings": {}, "cases": {}, "work": {}}
    if args.add and Path(f"{args.out}.json").exists():
        before = json.loads(Path(f"{args.out}.json").read_text())
        results |= {k: before[k] for k in ("ceilings", "cases", "work")}
    measure_ceilings(workers, results["ceilings"])
    for n in range(args.visits):
        for case, taken in cases.items():
            visit(case, workers, args.rounds, taken)
            print(f"{n + 1}/{args.visits}", case, {name: round(1e3 * median(times), 3) for name, times in taken.items()}, flush=True)
    results["work"] |= {case: operations(case) for case in cases}
    results["cases"] |= {case: results["cases"].get(case, {}) | {name: summary(times) for name, times in taken.items()} for case, taken in cases.items()}
    for part in "work", "cases": results[part] = {case: results[part][case] for case in all_cases() if case in results[part]}
    for w in workers:
        if w.kind != "ours": w.close()  # threads that spin while they wait would lower the ceilings
    ours = [w for w in workers if w.kind == "ours"]
    measure_ceilings(ours, results["ceilings"])
    for w in ours: w.close()
    print("\n" + table(results))
    Path(f"{args.out}.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__": main()
