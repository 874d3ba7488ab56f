"""What an installed package has to do, in an environment that has nothing else: no pytest, no compiler, no source.

    python installed.py [--pure]

The compiled layers give NumPy's answers with every instruction set that this machine has, the pages and pictures are there, a net
learns, and `cs231n-lit status` says what is in use. With --pure, there have to be no kernels. Each wheel is tried with this.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

os.environ["PATH"] = str(Path(sys.executable).parent)  # whatever is started from here on finds no compiler
sys.path[:] = [p for p in sys.path if not (Path(p or ".") / "setup.py").exists()]  # the package is the installed one

import numpy as np


def answers():
    "Outputs and gradients of compiled layers, each beside the readable layer's."
    from cs231n_lit import convolution as c, fast_layers as f, layers, pooling, spatial_norm as s
    for dtype in np.float32, np.float64:
        rng = np.random.default_rng(231)
        new = lambda *shape: rng.normal(size=shape).astype(dtype)
        for shape, (F, K), S, P in (((3, 4, 9, 9), (6, 3), 1, 1), ((2, 3, 11, 13), (5, 3), 2, 1), ((2, 3, 12, 12), (8, 7), 1, 3), ((3, 8, 6, 6), (16, 1), 1, 0)):
            given = new(*shape), new(F, shape[1], K, K), new(F), {"stride": S, "pad": P}
            (fast, cache), (plain, plain_cache) = f.conv_forward_fast(*given), c.conv_forward_naive(*given)
            dout = new(*plain.shape)
            yield f"convolution {K}x{K}", (fast, *f.conv_backward_fast(dout, cache)), (plain, *c.conv_backward_naive(dout, plain_cache))
        x, pool = new(3, 4, 8, 8), {"pool_height": 2, "pool_width": 2, "stride": 2}
        (fast, cache), (plain, plain_cache) = f.max_pool_forward_fast(x, pool), pooling.max_pool_forward_naive(x, pool)
        dout = new(*plain.shape)
        yield "max pooling", (fast, f.max_pool_backward_fast(dout, cache)), (plain, pooling.max_pool_backward_naive(dout, plain_cache))
        given, dout = (x, new(4), new(4)), new(*x.shape)
        (fast, cache), (plain, plain_cache) = f.spatial_batchnorm_forward_fast(*given, {"mode": "train"}), s.spatial_batchnorm_forward(*given, {"mode": "train"})
        yield "batch norm", (fast, *f.spatial_batchnorm_backward_fast(dout, cache)), (plain, *s.spatial_batchnorm_backward(dout, plain_cache))
        given, dout = (new(5, 4, 6), new(24, 7), new(7)), new(5, 7)
        (fast, cache), (plain, plain_cache) = f.affine_forward_fast(*given), layers.affine_forward(*given)
        yield "affine", (fast, *f.affine_backward_fast(dout, cache)), (plain, *layers.affine_backward(dout, plain_cache))


def check_layers():
    compared = 0
    for name, fast, plain in answers():
        for a, b in zip(fast, plain, strict=True):
            error = np.abs(a - b).max() / max(1, np.abs(b).max())
            assert a.dtype == b.dtype and a.shape == b.shape and error < (1e-4 if a.dtype == np.float32 else 1e-11), (name, a.dtype, a.shape, error)
            compared += 1
    return compared


def command(*words, **environment):
    "What a command of the package prints, run in an empty folder."
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-W", "error", "-m", "cs231n_lit", *words], cwd=folder, capture_output=True, text=True,
                              env={**os.environ, "MPLBACKEND": "agg", **environment})
        assert done.returncode == 0 and not done.stderr, (words, environment, done.returncode, done.stdout, done.stderr)
        return done.stdout, sorted(p.name for p in Path(folder).iterdir())


def check_learning():
    from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
    from cs231n_lit.data_utils import get_data
    from cs231n_lit.solver import Solver
    np.random.seed(231)
    data, _ = get_data("pictures")
    solver = Solver(ThreeLayerConvNet(num_filters=4, filter_size=3, hidden_dim=20), {k: v[:500] for k, v in data.items()}, update_rule="adam",
                    optim_config={"learning_rate": 1e-3}, num_epochs=3, batch_size=50, verbose=False)
    solver.train()
    first, last = solver.loss_history[0], np.mean(solver.loss_history[-5:])
    assert last < .95 * first, solver.loss_history
    return first, last


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pure", action="store_true", help="there have to be no compiled kernels")
    parser.add_argument("--layers", action="store_true", help="only compare the layers")
    args = parser.parse_args()
    if args.layers: return print(check_layers())
    import cs231n_lit
    from cs231n_lit.kernels.compiled import choices
    assert version("cs231n_lit") == cs231n_lit.__version__
    facts = json.loads(command("status", "--json")[0])
    assert facts["compiled"] != args.pure, facts
    isas = ["numpy"] if args.pure else ["numpy", *facts["isas"]]
    assert args.pure or (facts["isa"] == facts["isas"][0] and len(facts["isas"]) == len(choices())), facts
    if args.pure: warnings.filterwarnings("ignore", "cs231n_lit: the compiled kernels are missing")
    for isa in isas:
        env = {**os.environ, "CS231N_LIT_ISA": isa, "CS231N_LIT_NUM_THREADS": "2"}
        done = subprocess.run([sys.executable, "-W", "error", __file__, "--layers"], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        print(f"{isa}: {done.stdout.strip()} arrays are as the readable layers give them")
    print("loss from {:.2f} to {:.2f}".format(*check_learning()))
    assert command("exercise", "convolution")[1], "no notebook was written"
    print(command("status")[0])


if __name__ == "__main__": main()
