"""Each layer's four ways - loops, NumPy, compiled, PyTorch - compared and timed, forward and backward in one call.

    python benchmarks/four_ways.py [--rounds 15] [--torch-python PATH] [--layers affine conv …]

The ways are not written here. They are functions of the pages, in the tabs under "Four ways", and are taken from the notebooks:
`affine_loops`, `affine_numpy`, `affine_compiled`, `affine_torch`. Our ways run in one process and PyTorch's in another, on one thread
each, and take turns, so that whatever else the machine does hits all of them alike. Writes four-ways.json, which the pages show;
how they compare and show it stands on the page of all functions.

    python benchmarks/four_ways.py --errors torch

prints how far PyTorch's ways, run here and now, are from the numbers that the pages compare with.
"""
import argparse
import ast
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

from cs231n_lit._pages import LAYERS, NAMES, arguments, duration, error, page_file

NOTEBOOKS, TIMES = Path(__file__).resolve().parent.parent / "nbs", page_file("four-ways.json")


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
