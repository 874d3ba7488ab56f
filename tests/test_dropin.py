"""The drop-in: cells as a course notebook might have them, in our words, and what surrounds a notebook."""
import importlib
import json
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import cs231n_lit
from cs231n_lit import dropin

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {"affine_forward", "affine_backward", "relu_forward", "relu_backward", "dropout_forward", "dropout_backward", "softmax_loss", "svm_loss",
          "batchnorm_forward", "batchnorm_backward", "batchnorm_backward_alt", "layernorm_forward", "layernorm_backward",
          "conv_forward_naive", "conv_backward_naive", "max_pool_forward_naive", "max_pool_backward_naive",
          "spatial_batchnorm_forward", "spatial_batchnorm_backward", "spatial_groupnorm_forward", "spatial_groupnorm_backward"}
FAST = {"conv_forward_fast", "conv_backward_fast", "max_pool_forward_fast", "max_pool_backward_fast"}
SANDWICHES = {f"{name}_{way}" for name in ("affine_relu", "conv_relu", "conv_bn_relu", "conv_relu_pool") for way in ("forward", "backward")}
OWN = ["time", "np", "plt", "data", "rel_error", "status", "x", "w", "b", "y", "norms", "Net", "warnings", "os", "model", "solver"]


@pytest.fixture(autouse=True)
def fresh():
    "Each test starts and ends with the drop-in freshly installed."
    dropin.uninstall()
    dropin.install()
    yield
    dropin.uninstall()
    dropin.install()


def star(*modules):
    "The namespace of a notebook after star imports."
    notebook = dict.fromkeys(OWN, "own")
    for name in modules: exec(f"from {name} import *", notebook)
    return notebook


def python(code, *options, **more):
    "Run `code` in a fresh process and return what it printed."
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, cwd=more.pop("cwd", ROOT), **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- names

@pytest.mark.parametrize("module, names", [
    ("cs231n.layers", LAYERS), ("cs231n.fast_layers", FAST), ("cs231n.layer_utils", LAYERS | SANDWICHES | FAST),
    ("cs231n.classifiers.fc_net", LAYERS | SANDWICHES | {"TwoLayerNet", "FullyConnectedNet"}),
    ("cs231n.classifiers.cnn", LAYERS | SANDWICHES | FAST | {"ThreeLayerConvNet"}),
    ("cs231n.gradient_check", {"eval_numerical_gradient", "eval_numerical_gradient_array", "grad_check_sparse"})])
def test_star_import_brings_the_vocabulary_and_nothing_of_the_notebooks(module, names):
    notebook = star(module)
    assert names <= notebook.keys()
    assert {k: notebook[k] for k in OWN} == dict.fromkeys(OWN, "own")
    assert [n for n in notebook.keys() - names - set(OWN) - {"__builtins__"} if not n.split("_fast")[0].endswith(("_forward", "_backward"))] == []


def test_imports_as_the_notebooks_write_them():
    lines = ["from cs231n.classifiers.fc_net import TwoLayerNet, FullyConnectedNet", "from cs231n.classifiers.cnn import ThreeLayerConvNet",
             "from cs231n.data_utils import get_CIFAR10_data, load_CIFAR10", "from cs231n.solver import Solver",
             "from cs231n.gradient_check import eval_numerical_gradient, eval_numerical_gradient_array, grad_check_sparse, rel_error",
             "from cs231n.fast_layers import conv_forward_fast, conv_backward_fast, max_pool_forward_fast, max_pool_backward_fast",
             "from cs231n.layer_utils import conv_relu_pool_forward, conv_relu_pool_backward, affine_relu_forward, conv_bn_relu_backward",
             "from cs231n.optim import sgd, sgd_momentum, rmsprop, adam", "from cs231n import optim, layers, classifiers",
             "from cs231n.vis_utils import visualize_grid", "import cs231n.layers as L; L.svm_loss",
             "import cs231n.classifiers.fc_net; cs231n.classifiers.fc_net.TwoLayerNet"]
    python(f"import cs231n_lit.dropin\nfor line in {lines}: exec(line, {{}})", "-W", "error")


def test_nothing_but_the_finder_is_loaded_at_first():
    assert python("import cs231n_lit.dropin, sys; print([m for m in sys.modules if m.split('.')[0] == 'cs231n'])").strip() == "[]"


def test_the_page_lists_every_name():
    cells = json.loads((ROOT / "nbs/24_dropin.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    listed = set(re.findall(r"^\| `(cs231n[\w.]+)` \|", text, re.M))
    assert listed == {name for name, ours in dropin._COURSE.items() if ours}
    for name, ours in dropin._COURSE.items():
        assert all(hasattr(importlib.import_module(f"cs231n_lit.{o}"), "__all__") for o in ours), name


def test_import_twice_and_reload():
    import cs231n.layers as L
    import cs231n.optim as O
    again = dropin
    importlib.reload(again)
    assert importlib.reload(L) is L and importlib.reload(O) is O
    assert sum(map(dropin._is_ours, sys.meta_path)) == 1
    import cs231n.layers
    assert cs231n.layers is L and L.relu_forward is cs231n_lit.layers.relu_forward


def test_one_to_one_modules_are_the_same_object():
    for name in ("optim", "solver", "data_utils", "vis_utils"):
        assert importlib.import_module(f"cs231n.{name}") is importlib.import_module(f"cs231n_lit.{name}")
        assert importlib.import_module(f"cs231n_lit.{name}").__spec__.name == f"cs231n_lit.{name}"


def test_pickles_by_either_name():
    from cs231n.classifiers.cnn import ThreeLayerConvNet
    from cs231n.optim import adam
    net = pickle.loads(pickle.dumps(ThreeLayerConvNet(input_dim=(1, 4, 4), num_filters=2, filter_size=3, hidden_dim=3)))
    assert type(net) is ThreeLayerConvNet
    assert pickle.loads(b"ccs231n.optim\nadam\n.") is adam
    assert pickle.loads(b"ccs231n.classifiers.cnn\nThreeLayerConvNet\n.") is ThreeLayerConvNet


def test_autoreload():
    pytest.importorskip("IPython")
    said = python("""
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in ["import cs231n_lit.dropin", "%load_ext autoreload\\n%autoreload 2", "from cs231n.classifiers.fc_net import *\\nimport cs231n.optim",
             "net = TwoLayerNet(4, 3, 2)", "import cs231n.layers\\nnet.loss(__import__('numpy').ones((1, 4))).shape"]:
    shell.run_cell(cell).raise_error()
""")
    assert "autoreload" not in said and "(1, 2)" in said


# ---------------------------------------------------------------- a folder of the same name

@pytest.fixture
def folder(tmp_path, monkeypatch):
    "A course folder on the path: an unfinished layers.py, and a module that we don't have."
    for d in ("cs231n", "cs231n/classifiers"):
        (tmp_path / d).mkdir()
        (tmp_path / d / "__init__.py").touch()
    (tmp_path / "cs231n/layers.py").write_text("relu_forward = 'unfinished'\n")
    (tmp_path / "cs231n/rnn_layers.py").write_text("from .layers import relu_forward\n")
    (tmp_path / "cs231n/classifiers/nearest.py").write_text("from cs231n.layers import relu_forward as near\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_ours_wins_over_a_folder_and_says_so(folder):
    with pytest.warns(UserWarning, match="now come from cs231n_lit, not from .*__init__.py"):
        import cs231n.layers
    assert cs231n.layers.relu_forward is cs231n_lit.layers.relu_forward


def test_modules_we_lack_come_from_the_folder_and_get_our_layers(folder):
    with pytest.warns(UserWarning, match="not from"):
        import cs231n.rnn_layers
        import cs231n.classifiers.nearest as n
    assert cs231n.rnn_layers.relu_forward is n.near is cs231n_lit.layers.relu_forward


def test_a_folder_imported_before(folder):
    dropin.uninstall()
    import cs231n.layers
    assert cs231n.layers.relu_forward == "unfinished"
    dropin.install()
    with pytest.warns(UserWarning, match="not from"):
        import cs231n.layers
    assert cs231n.layers.relu_forward is cs231n_lit.layers.relu_forward


def test_uninstall_gives_the_name_back(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cs231n.optim
    dropin.uninstall()
    assert "cs231n_lit.optim" in sys.modules
    import cs231n.layers
    assert cs231n.layers.relu_forward == "unfinished"


def test_a_folder_of_downloads_is_no_package(tmp_path, monkeypatch):
    "get_datasets.sh and the photographs leave a cs231n folder without code: nothing to warn about."
    (tmp_path / "cs231n/notebook_images").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    import cs231n.layers
    assert cs231n.layers.relu_forward is cs231n_lit.layers.relu_forward


@pytest.mark.parametrize("name", ["cs231n.features", "cs231n.classifiers.k_nearest_neighbor", "cs231n.layers.deeper"])
def test_a_module_nobody_has(name):
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{name}'") as e: importlib.import_module(name)
    assert e.value.name == name


# ---------------------------------------------------------------- the photographs of 2018

def test_scipy_misc_of_2018(tmp_path, monkeypatch):
    "Where SciPy is installed, its missing functions are supplied; a stand-in for SciPy itself would fool others."
    import imageio.v3 as iio
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.split(".")[0] == "scipy"]: monkeypatch.delitem(sys.modules, name)
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    iio.imwrite(tmp_path / "kitten.png", photo)
    notebook = {}
    try: exec("from scipy.misc import imread, imresize", notebook)
    finally:
        for name in [n for n in sys.modules if n.split(".")[0] == "scipy"]: del sys.modules[name]
    kitten = notebook["imread"](str(tmp_path / "kitten.png"))
    np.testing.assert_array_equal(kitten, photo)
    small = notebook["imresize"](kitten[:, 5:-5], (10, 8))
    assert small.shape == (10, 8, 3) and small.dtype == np.uint8
    assert abs(small.mean() - kitten[:, 5:-5].mean()) < 3


# ---------------------------------------------------------------- cells

def net_errors(net, X, y, h=1e-5):
    "Numeric against analytic gradients of all parameters, as the notebooks compute them."
    from cs231n.gradient_check import eval_numerical_gradient
    grads = net.loss(X, y)[1]
    assert grads.keys() == net.params.keys()
    numeric = {k: eval_numerical_gradient(lambda _: net.loss(X, y)[0], net.params[k], verbose=False, h=h) for k in sorted(grads)}
    return {k: abs(numeric[k] - grads[k]).max() / max(1e-3, abs(grads[k]).max()) for k in grads}


def test_two_layer_net_by_position_and_its_file(tmp_path, monkeypatch):
    notebook = star("cs231n.classifiers.fc_net")
    np.random.seed(0)
    net = notebook["TwoLayerNet"](5, 6, 4)
    X, y = np.random.randn(3, 5), np.array([0, 3, 1])
    net.params["W1"] = np.random.randn(5, 6)
    net.params["W2"] = np.random.randn(6, 4)
    for reg in (0.0, .7):
        net.reg = reg
        assert max(net_errors(net, X, y).values()) < 1e-5
    monkeypatch.chdir(tmp_path)
    net.save("best.npy")
    other = notebook["TwoLayerNet"](5, 6, 4)
    assert other.load("best.npy") and not other.load("missing.npy")
    np.testing.assert_array_equal(other.loss(X), net.loss(X))


@pytest.mark.parametrize("settings", [
    dict(reg=0), dict(reg=3.14), dict(normalization=None), dict(normalization="batchnorm"), dict(normalization="layernorm", reg=3.14),
    dict(dropout=1), dict(dropout=.75, seed=123), dict(dropout_keep_ratio=1), dict(dropout_keep_ratio=.5, seed=123)], ids=str)
def test_fully_connected_net(settings):
    notebook = star("cs231n.classifiers.fc_net")
    np.random.seed(1)
    X, y = np.random.randn(4, 7), np.random.randint(3, size=(4,))
    net = notebook["FullyConnectedNet"]([6, 5], input_dim=7, num_classes=3, weight_scale=.3, dtype=np.float64, **settings)
    norm = settings.get("normalization")
    assert net.params.keys() == {f"{n}{i}" for i in (1, 2, 3) for n in "Wb"} | ({f"{n}{i}" for i in (1, 2) for n in ("gamma", "beta")} if norm else set())
    for i in (1, 2, 3): net.params[f"b{i}"] += .1 * np.random.randn(*net.params[f"b{i}"].shape)  # away from ReLU's kink at 0
    assert net.loss(X, y)[0] == net.loss(X, y)[0]
    assert max(net_errors(net, X, y).values()) < 1e-4
    assert np.argmax(net.loss(X), axis=1).shape == (4,)


def test_convnet_and_its_filters():
    notebook = star("cs231n.classifiers.cnn")
    from cs231n.vis_utils import visualize_grid
    np.random.seed(2)
    net = notebook["ThreeLayerConvNet"](num_filters=3, filter_size=3, input_dim=(3, 6, 6), hidden_dim=7, dtype=np.float64, weight_scale=.1)
    X, y = np.random.randn(2, 3, 6, 6), np.random.randint(10, size=2)
    assert max(net_errors(net, X, y, h=1e-6).values()) < 1e-5
    plain = net.loss(X, y)[0]
    net.reg = .5
    assert net.loss(X, y)[0] > plain
    assert visualize_grid(net.params["W1"].transpose(0, 2, 3, 1)).astype("uint8").shape == (7, 7, 3)
    assert visualize_grid(np.random.randn(5, 4, 4, 3), padding=3).shape == (18, 18, 3)


def test_solver_on_features_with_further_keys(capsys):
    notebook = star("cs231n.classifiers.fc_net")
    from cs231n.solver import Solver
    np.random.seed(3)
    y = np.arange(60) % 3
    X = np.eye(3)[y] @ np.random.randn(3, 8) + .1 * np.random.randn(60, 8)
    data = {"X_train": X[:40], "y_train": y[:40], "X_val": X[40:], "y_val": y[40:], "X_test": X[40:], "y_test": y[40:]}
    asked = {"learning_rate": 1e-2}
    solver = Solver(notebook["FullyConnectedNet"]([10], input_dim=8, num_classes=3, weight_scale=.3), data, update_rule="adam", optim_config=asked,
                    lr_decay=.95, num_epochs=6, batch_size=10, print_every=4, verbose=True, num_train_samples=20)
    solver.train()
    said = capsys.readouterr().out
    assert said.startswith("(Iteration 1 / 24) loss: ") and "(Epoch 6 / 6) train acc: " in said and "; val_acc: " in said
    assert asked == {"learning_rate": 1e-2}
    assert len(solver.loss_history) == 24 and len(solver.train_acc_history) == len(solver.val_acc_history)
    assert np.mean(solver.loss_history[-10:]) < solver.loss_history[0] and max(solver.val_acc_history) == solver.best_val_acc > .9
    assert solver.check_accuracy(data["X_test"], data["y_test"]) == solver.check_accuracy(data["X_val"], data["y_val"])


def test_layers_as_the_notebooks_call_them():
    n = star("cs231n.layers", "cs231n.fast_layers", "cs231n.layer_utils", "cs231n.gradient_check")
    np.random.seed(4)
    # integer parameters, parameter dictionaries empty or with a mode, gamma and beta (1, C, 1, 1)
    x = 5 * np.random.randn(2, 6, 4, 5) + 12
    for shape in [(6,), (1, 6, 1, 1)]:
        gamma, beta, dout = np.random.randn(*shape), np.random.randn(*shape), np.random.randn(*x.shape)
        out, cache = n["spatial_groupnorm_forward"](x, gamma, beta, 2, {"mode": "train"} if len(shape) == 1 else {})
        dx, dgamma, dbeta = n["spatial_groupnorm_backward"](dout, cache)
        numeric = n["eval_numerical_gradient_array"](lambda _: n["spatial_groupnorm_forward"](x, gamma, beta, 2, {})[0], gamma, dout)
        assert dgamma.shape == dbeta.shape == shape and abs(dgamma - numeric).max() < 1e-7
    bn_param = {"mode": "train"}
    out, _ = n["spatial_batchnorm_forward"](x, np.arange(1, 7), np.arange(6), bn_param)
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), np.arange(6), atol=1e-9)
    bn_param["mode"] = "test"
    assert n["spatial_batchnorm_forward"](x, np.ones(6), np.zeros(6), bn_param)[0].shape == x.shape
    # an image filter with an integer bias
    w = np.zeros((2, 3, 3, 3))
    w[0, :, 1, 1] = .3, .6, .1
    photo = np.random.rand(2, 3, 8, 8)
    out, _ = n["conv_forward_naive"](photo, w, np.array([0, 128]), {"stride": 1, "pad": 1})
    np.testing.assert_allclose(out[:, 0], np.tensordot(photo, [.3, .6, .1], axes=(1, 0)))
    assert (out[:, 1] == 128).all()
    # backward twice from one cache
    a = np.random.randn(10, 4)
    _, cache = n["batchnorm_forward"](a, np.ones(4), np.zeros(4), {"mode": "train"})
    one, other = n["batchnorm_backward"](a, cache), n["batchnorm_backward_alt"](a, cache)
    for g, h in zip(one, other): np.testing.assert_allclose(g, h, atol=1e-12)
    # dropout with a seed, gradient-checked through a closure
    drop = {"mode": "train", "p": .2, "seed": 123}
    dx = n["dropout_backward"](a, n["dropout_forward"](a, drop)[1])
    assert abs(dx - n["eval_numerical_gradient_array"](lambda xx: n["dropout_forward"](xx, drop)[0], a, a)).max() < 1e-8


def test_update_rules_write_into_the_callers_dictionary():
    from cs231n.optim import adam, rmsprop, sgd_momentum
    for rule, kept in [(sgd_momentum, {"velocity"}), (rmsprop, {"cache"}), (adam, {"m", "v", "t"})]:
        config = {"learning_rate": 1e-2}
        next_w, _ = rule(np.ones(3), np.ones(3), config=config)
        assert kept <= config.keys() and (next_w != 1).all()
