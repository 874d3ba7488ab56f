"A resumed run ends as the uninterrupted one, to the last bit: every update rule, with and without dropout, with each norm, and in a new process."
import subprocess
import sys

import numpy as np
import pytest

from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
from cs231n_lit.classifiers.fc_net import FullyConnectedNet
from cs231n_lit.solver import Solver

RULES = ["sgd", "sgd_momentum", "rmsprop", "adam"]


def small(*shape, seed=0):
    "Twenty examples to learn from and nine to look at."
    rng = np.random.default_rng(seed)
    return {"X_train": rng.standard_normal((20, *shape)), "y_train": rng.integers(3, size=20),
            "X_val": rng.standard_normal((9, *shape)), "y_val": rng.integers(3, size=9)}


def bits(solver):
    "All that a run has at its end, as bytes."
    def flat(tree):
        if isinstance(tree, dict): return {k: flat(v) for k, v in tree.items()}
        if isinstance(tree, (list, tuple)): return [flat(v) for v in tree]
        return np.asarray(tree).tobytes()
    names = "loss_history train_acc_history val_acc_history best_val_acc best_params best_bn_params optim_configs epoch iteration"
    return flat([{k: getattr(solver, k) for k in names.split()}, solver.model.params, getattr(solver.model, "bn_params", None), np.random.get_state()[1:]])


def check(net, data, rule, folder, **options):
    "Train with a checkpoint each epoch, resume from every one, and compare."
    np.random.seed(231)
    whole = Solver(net(), data, rule, {"learning_rate": 0.05}, lr_decay=0.9, batch_size=6, num_epochs=3, num_train_samples=15, num_val_samples=8,
                   checkpoint_name=folder / "run", verbose=False, **options)
    whole.train()
    expected = bits(whole)
    assert len(whole.loss_history) == 9 and np.isfinite(whole.loss_history).all()
    for epoch in range(4):
        np.random.seed(epoch)
        resumed = Solver.resume(folder / f"run_epoch_{epoch}.npz", net(), data, checkpoint_name=None)
        resumed.train()
        assert bits(resumed) == expected


@pytest.mark.parametrize("dropout", [1, 0.5], ids=["all", "dropout"])
@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES)
def test_fully_connected(rule, dtype, normalization, dropout, tmp_path):
    net = lambda: FullyConnectedNet([7, 5], 4, 3, dropout, normalization, reg=0.01, dtype=dtype)
    check(net, small(4), rule, tmp_path)


@pytest.mark.parametrize("rule", RULES)
def test_convolutional(rule, tmp_path):
    check(lambda: ThreeLayerConvNet((2, 6, 6), 3, 3, 5, 3, reg=0.01), small(2, 6, 6), rule, tmp_path)


def test_dropout_with_a_seed(tmp_path):
    "The same mask at each step: the seed is part of what is saved."
    check(lambda: FullyConnectedNet([7], 4, 3, 0.5, seed=3), small(4), "adam", tmp_path)


PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_resume import *
folder, start = Path(sys.argv[1]), sys.argv[2]
net, data = lambda: FullyConnectedNet([7, 5], 4, 3, 0.5, "batchnorm"), small(4)
np.random.seed(231)
if start == "new": solver = Solver(net(), data, "adam", batch_size=6, num_epochs=3, checkpoint_name=folder / "run", verbose=False)
else: solver = Solver.resume(folder / start, net(), data)
solver.train()
print(hash_of(solver))
"""


def hash_of(solver):
    import hashlib
    return hashlib.sha256(repr(bits(solver)).encode()).hexdigest()


def test_in_a_new_process(tmp_path):
    program = PROGRAM.format(tests=str(__import__("pathlib").Path(__file__).parent))
    def run(start): return subprocess.run([sys.executable, "-c", program, str(tmp_path), start], capture_output=True, text=True, check=True).stdout
    whole = run("new")
    assert len(whole.strip()) == 64
    assert run("run_epoch_1.npz") == run("run_epoch_2.npz") == whole
