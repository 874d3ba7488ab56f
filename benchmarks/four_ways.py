"""Each layer's four ways - loops, NumPy, compiled, PyTorch - compared and timed, forward and backward in one call.

    python benchmarks/four_ways.py [--rounds 15] [--torch-python PATH] [--layers affine conv …]

The ways are not written here. They are functions of the pages, in the tabs under "Four ways", and are taken from the notebooks:
`affine_loops`, `affine_numpy`, `affine_compiled`, `affine_torch`. Our ways run in one process and PyTorch's in another, on one thread
each, and take turns, so that whatever else the machine does hits all of them alike. Writes four-ways.json, which the pages show.

    python benchmarks/four_ways.py --errors torch

prints how far PyTorch's ways, run here and now, are from the numbers that the pages compare with.
"""
import argparse
import ast
import inspect
import json
import os
import platform
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).resolve().parent
NOTEBOOKS, TIMES = HERE.parent / "nbs", HERE / "four-ways.json"
NAMES = {"loops": "loops", "numpy": "NumPy", "compiled": "compiled", "torch": "PyTorch"}
LAYERS = {  # page, case of the fixtures, and what is timed: shapes, or settings as they are
    "affine": ("04_layers", "affine", dict(x=(50, 3, 8, 8), w=(192, 50), b=(50,), dout=(50, 50))),
    "relu": ("04_layers", "relu", dict(x=(64, 32, 16, 16), dout=(64, 32, 16, 16))),
    "softmax_loss": ("04_layers", "softmax", dict(x=(1000, 10), y=np.arange(1000) % 10)),
    "batchnorm": ("05_normalization", "batchnorm", dict(x=(200, 500), gamma=(500,), beta=(500,), dout=(200, 500))),
    "layernorm": ("05_normalization", "layernorm", dict(x=(200, 500), gamma=(500,), beta=(500,), dout=(200, 500))),
    "conv": ("06_convolution", "conv_s2p1", dict(x=(8, 16, 16, 16), w=(16, 16, 3, 3), b=(16,), stride=1, pad=1, dout=(8, 16, 16, 16))),
    "max_pool": ("07_pooling", "pool_ties", dict(x=(8, 16, 32, 32), pool_height=2, pool_width=2, stride=2, dout=(8, 16, 16, 16))),
    "spatial_batchnorm": ("08_spatial_norm", "spatial_batchnorm", dict(x=(16, 16, 16, 16), gamma=(16,), beta=(16,), dout=(16, 16, 16, 16))),
    "spatial_groupnorm": ("08_spatial_norm", "groupnorm_G2", dict(x=(16, 16, 16, 16), gamma=(16,), beta=(16,), G=4, dout=(16, 16, 16, 16)))}


def functions(page, with_torch=False):
    "The functions of a page by name: those in cells that are not evaluated for PyTorch, else what the page defines and imports."
    cells = json.loads((NOTEBOOKS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    chosen = [s for s in sources if bool(re.match(r"#\| *eval: *false", s)) == with_torch]
    imports = () if with_torch else (ast.Import, ast.ImportFrom)
    found = {}
    if with_torch:
        import torch
        found["torch"] = torch
    for source in chosen:
        nodes = ast.parse(re.sub(r"^%.*", "", source, flags=re.M)).body
        body = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef, *imports)) or isinstance(getattr(n, "value", None), ast.Lambda)]
        exec(compile(ast.Module(body, []), page, "exec"), found)
    return found


def ways(layer, with_torch=False):
    "A layer's ways: name of the way to function."
    found = functions(LAYERS[layer][0], with_torch)
    return {way: found[f"{layer}_{way}"] for way in NAMES if (way == "torch") == with_torch and f"{layer}_{way}" in found}


def run(way, given):
    "Call a way with what it asks for. Arrays out, whatever it computes with."
    return [a.detach().numpy() if hasattr(a, "detach") else a for a in way(*arguments(way, given))]


def arguments(way, given):
    "What the way asks for, by the names of its parameters; as tensors where it is PyTorch's."
    asked = [given[name] for name in inspect.signature(way).parameters]
    if not way.__name__.endswith("_torch"): return asked
    import torch
    tensors = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in asked]
    return [a.requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in tensors]


def error(way):
    "The largest difference from PyTorch's output and gradients, each as a part of its largest value, on the small arrays of the fixtures."
    layer = way.__name__.rpartition("_")[0]
    case = LAYERS[layer][1]
    with np.load(NOTEBOOKS / "fixtures/torch.npz") as file:
        given = {key.partition("/")[2]: file[key] for key in file.files if key.startswith(case + "/")}
    given = {name: a if a.ndim else a.item() for name, a in given.items()}
    asked = inspect.signature(way).parameters
    expected = [given["out"] if "out" in given else given["loss"], *(given[f"d{name}"] for name in asked if f"d{name}" in given)]
    got = run(way, given)
    assert [np.shape(a) for a in got] == [np.shape(a) for a in expected]
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in zip(got, expected))


# ---- the table on the pages ---------------------------------------------------------------------------------------

def duration(ms):
    "Milliseconds as text."
    text = f"{1000 * ms:.0f} µs" if ms < 1 else f"{ms:.1f} ms" if ms < 100 else f"{ms / 1000:.2f} s"
    return text.replace(" ", "\u00a0")


def factor(ratio):
    "A ratio as text, to two digits where it is large."
    return (f"{ratio:.2f}" if ratio < 10 else f"{float(f'{ratio:.2g}'):,.0f}") + "\u00a0×"


def table(*ours):
    "How far a page's ways are from PyTorch's numbers, here and now, and how long each took when it was timed."
    from IPython.display import Markdown
    layer = ours[0].__name__.rpartition("_")[0]
    errors = {way.__name__.rpartition("_")[2]: error(way) for way in ours}
    assert max(errors.values()) < 1e-10, errors
    measured = json.loads(TIMES.read_text(encoding="utf-8"))
    ms, timed = measured["milliseconds"].get(layer, {}), LAYERS[layer][2]
    lines = ["| way | difference | time | against PyTorch |", "| :-- | --: | --: | --: |"]
    for way in [*errors, "torch"]:
        ratio = ms[way] / ms["torch"] if {"torch", way} <= ms.keys() else 0
        cells = [(f"{errors[way]:.0e}" if errors[way] else "0") if way in errors else "", duration(ms[way]) if way in ms else "", factor(ratio) if ratio else ""]
        lines.append(f"| {' | '.join([NAMES[way], *cells])} |")
    x = " × ".join(map(str, timed["x"]))
    return Markdown("\n".join([*lines, "", f"*Difference*: from PyTorch's numbers, here and now. *Time*: forward and backward in float32, on one thread, for an x of {x}; medians of {measured['rounds']} rounds."]))


# ---- workers: one process each ------------------------------------------------------------------------------------

def inputs(layer):
    "What a layer is timed with."
    rng = np.random.default_rng(231)
    return {name: rng.standard_normal(v).astype(np.float32) if isinstance(v, tuple) else v for name, v in LAYERS[layer][2].items()}


def worker(kind):
    "Read layer, way and number of calls from stdin; write the times of the calls, in milliseconds, to stdout."
    answers, sys.stdout = sys.stdout, sys.stderr
    if kind == "torch":
        import torch
        torch.set_num_threads(1)
    ready = None
    for line in sys.stdin:
        layer, name, calls = json.loads(line)
        if layer != ready: ready, found, given = layer, ways(layer, kind == "torch"), inputs(layer)
        args, taken = arguments(found[name], given), []
        for _ in range(calls):
            start = time.perf_counter()
            found[name](*args)
            taken.append(1000 * (time.perf_counter() - start))
        print(json.dumps(taken), file=answers, flush=True)


class Worker:
    "A process that times ways on request."
    def __init__(self, kind, python):
        one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CS231N_LIT_NUM_THREADS"), "1")
        keep = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}  # as in bench.py
        self.process = subprocess.Popen([python, __file__, "--worker", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **one, **keep})

    def time(self, layer, way, calls):
        "Times of this many calls, in milliseconds."
        print(json.dumps([layer, way, calls]), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


def measure(layer, workers, rounds, budget=20):
    "Interleaved: each round, each way makes as many calls as fit into the budget (ms). Median times by way."
    by_way = {way: workers["ours"] for way in ways(layer)} | ({"torch": workers["torch"]} if "torch" in workers else {})
    first = {way: w.time(layer, way, 1 if way == "loops" else 3)[-1] for way, w in by_way.items()}
    times = {way: [] for way in by_way}
    for k in range(rounds):
        for way, w in by_way.items():
            if way != "loops" or k < 3: times[way] += w.time(layer, way, max(1, min(100, int(budget / first[way]))))
    return {way: float(f"{median(t):.4g}") for way, t in times.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--torch-python", default=os.environ.get("TORCH_PYTHON", sys.executable), help="a Python that has PyTorch")
    parser.add_argument("--worker", choices=("ours", "torch"), help=argparse.SUPPRESS)
    parser.add_argument("--errors", choices=("ours", "torch"), help="only print how far the ways are from the fixtures")
    args = parser.parse_args()
    if args.worker: return worker(args.worker)
    if args.errors:
        return print(json.dumps({way.__name__: error(way) for layer in args.layers for way in ways(layer, args.errors == "torch").values()}))
    has_torch = subprocess.run([args.torch_python, "-c", "import torch"], capture_output=True).returncode == 0
    workers = {"ours": Worker("ours", sys.executable)} | ({"torch": Worker("torch", args.torch_python)} if has_torch else {})
    old = json.loads(TIMES.read_text(encoding="utf-8"))["milliseconds"] if TIMES.exists() else {}
    found = {layer: measure(layer, workers, args.rounds) for layer in args.layers}
    for w in workers.values(): w.process.stdin.close()
    result = {"machine": platform.machine(), "date": str(date.today()), "rounds": args.rounds,
              "milliseconds": {layer: found.get(layer, old.get(layer)) for layer in LAYERS if layer in found or layer in old}}
    TIMES.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for layer, ms in found.items(): print(layer.ljust(20), *(f"{NAMES[way]} {duration(t)}".ljust(20) for way, t in ms.items()))


if __name__ == "__main__":
    main()
