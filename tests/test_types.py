"""Types: every public function says what it takes and gives, and a type checker believes it."""
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "cs231n_lit").rglob("*.py")
                 if p.stem[0] != "_" and p.parent.name != "kernels")  # those are written in Cython's types


def public(module):
    "Functions of a module's __all__, and the methods of its classes that have a plain name or are __init__."
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing): yield name, thing
        if inspect.isclass(thing):
            for method, f in vars(thing).items():
                f = getattr(f, "__func__", f)
                if inspect.isfunction(f) and (method[0] != "_" or method == "__init__"): yield f"{name}.{method}", f


@pytest.mark.parametrize("name", MODULES)
def test_parameters_and_results_have_types(name):
    bare = []
    for where, f in public(importlib.import_module(name)):
        signature = inspect.signature(f)
        bare += [f"{where}({p.name})" for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")]
        if signature.return_annotation is signature.empty and not where.endswith(".__init__"): bare.append(f"{where} -> ?")
    assert bare == []


CLIENT = """
from pathlib import Path
import numpy as np
from cs231n_lit import checks, optim
from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
from cs231n_lit.classifiers.fc_net import FullyConnectedNet
from cs231n_lit.convolution import conv_forward_naive
from cs231n_lit.data_utils import get_data
from cs231n_lit.fast_layers import conv_backward_fast, conv_forward_fast, set_num_threads
from cs231n_lit.gradient_check import eval_numerical_gradient, rel_error
from cs231n_lit.layers import softmax_loss
from cs231n_lit.solver import Solver, load_checkpoint


def train(folder: Path) -> float:
    data, _ = get_data("pictures", dtype=np.float32)
    model = ThreeLayerConvNet(num_filters=8, rng=np.random.default_rng(0), dtype="float32")
    solver = Solver(model, data, update_rule=optim.adam, optim_config={"learning_rate": 1e-3}, checkpoint_name=folder / "net")
    solver.train()
    scores = model.loss(data["X_val"])
    loss, grads = model.loss(data["X_val"], data["y_val"])
    print(scores.argmax(axis=1), loss, grads["W1"].shape, load_checkpoint(folder / "net_epoch_1.npz"))
    return solver.best_val_acc


def differentiate(x: np.ndarray, w: np.ndarray) -> float:
    set_num_threads(2)
    out, cache = conv_forward_fast(x, w, np.zeros(len(w)), {"stride": 1, "pad": 1})
    dx, dw, db = conv_backward_fast(np.ones_like(out), cache)
    naive, _ = conv_forward_naive(x, w, np.zeros(len(w)), {"stride": 1, "pad": 1})
    numeric = eval_numerical_gradient(lambda x: float(np.sum(x)), x, verbose=False)
    loss, _ = softmax_loss(FullyConnectedNet([5], dropout=.5).loss(x), np.zeros(len(x), int))
    return rel_error(naive, out) + rel_error(numeric, dx) + float(loss) + checks.check_count("f", "n", len(db) + dw.size)
"""


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    "Runs mypy; fails if it finds fault."
    pytest.importorskip("mypy")
    cache = tmp_path_factory.mktemp("mypy")
    def check(*arguments):
        done = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", cache, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return check


@pytest.mark.slow
def test_mypy_accepts_the_package(mypy):
    mypy()


@pytest.mark.slow
def test_mypy_accepts_a_program_that_uses_it(mypy, tmp_path):
    "In its strict mode, and it refuses a wrong one."
    client = tmp_path / "client.py"
    client.write_text(CLIENT)
    mypy("--strict", "--follow-imports", "silent", client)
    client.write_text(CLIENT.replace("set_num_threads(2)", "set_num_threads('two')"))
    with pytest.raises(AssertionError, match="client.py.*set_num_threads"): mypy("--strict", "--follow-imports", "silent", client)
