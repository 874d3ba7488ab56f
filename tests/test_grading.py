"""Feedback on a folder of submissions: each on its own, whatever it does."""
import csv
import io
import json

import pytest

from cs231n_lit.grading import as_csv, as_markdown, grade

RELU = "import numpy as np\ndef relu_forward(x): return np.maximum(0, x), x\n"


def notebook(*sources): return json.dumps({"cells": [{"cell_type": "code", "source": s} for s in sources], "nbformat": 4, "nbformat_minor": 5, "metadata": {}})


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submissions")
    (folder / "group" / "cs231n").mkdir(parents=True)
    files = {"right.py": RELU, "=formula.py": RELU.replace("0, x", "0.01 * x, x"), "group/cs231n/layers.py": "from cs231n.layers import *\nfrom .optim import *\nimport no_such_module\n" + RELU,
             "moved.ipynb": notebook("%matplotlib inline\nplt.plot(3)", "def relu_forward(x: return", "while True: pass", RELU, "1/0"), "broken.ipynb": "{", "empty.py": "",
             "leaves.py": "def relu_forward(x):\n    import os\n    os._exit(3)", "ends.py": "import sys\ndef relu_forward(x): sys.exit()", "theirs.py": "from cs231n.layers import *\n"}
    for name, text in files.items(): (folder / name).write_text(text)
    return {g["submission"]: g for g in grade(folder, ["relu_forward"], seconds=120)}


def test_each_is_judged_on_its_own(graded):
    states = {name: g["results"]["relu_forward"]["state"] for name, g in graded.items()}
    assert states == {"right.py": "right", "=formula.py": "leaky", "group": "right", "moved.ipynb": "right", "broken.ipynb": "missing", "empty.py": "missing", "leaves.py": "stopped",
                      "ends.py": "wrong", "theirs.py": "missing"}
    assert "cell 2, line 1 is not Python" in graded["moved.ipynb"]["notes"][0] and "not a readable notebook" in graded["broken.ipynb"]["notes"][0]


def test_the_tables(graded):
    rows = list(csv.DictReader(io.StringIO(as_csv(list(graded.values())))))
    assert len(rows) == 9 and {r["submission"] for r in rows} >= {"'=formula.py", "right.py"}
    assert as_markdown(list(graded.values())).count("\n") == 11


def test_a_process_that_never_ends_is_ended(tmp_path):
    (tmp_path / "endless.py").write_text("class relu_forward:\n    while True:\n        try: pass\n        except BaseException: pass\n")
    [g] = grade(tmp_path, ["relu_forward"], seconds=4)
    assert g["points"] == 0 and "could not be loaded" in g["notes"][0]


NET = """from ..layer_utils import *
class TwoLayerNet(object):
    def __init__(self, input_dim=3072, hidden_dim=100, num_classes=10, weight_scale=1e-3, reg=0.0):
        draw = lambda *shape: weight_scale * np.random.randn(*shape)
        self.reg, self.params = reg, {"W1": draw(input_dim, hidden_dim), "b1": np.zeros(hidden_dim), "W2": draw(hidden_dim, num_classes), "b2": np.zeros(num_classes)}
    def loss(self, X, y=None):
        p = self.params
        h, c1 = HIDDEN(X, p["W1"], p["b1"])
        scores, c2 = affine_forward(h, p["W2"], p["b2"])
        if y is None: return scores
        loss, ds = softmax_loss(scores, y)
        dh, dW2, db2 = affine_backward(ds, c2)
        _, dW1, db1 = BACK(dh, c1)
        loss += 0.5 * self.reg * sum((p[n] ** 2).sum() for n in ("W1", "W2"))
        return loss, {"W1": dW1 + self.reg * p["W1"], "b1": db1, "W2": dW2 + self.reg * p["W2"], "b2": db2}
"""
OWN = """from .layers import *
def hidden_forward(x, w, b):
    a, c = affine_forward(x, w, b)
    h, r = relu_forward(a)
    return h, [c, r]
def hidden_back(d, cache):
    c, r = cache
    return affine_backward(relu_backward(d, r), c)
"""


def test_nets_find_their_layers(tmp_path):
    "Star imports, as the course's files have them, in whole and in mangled folders; helpers from other files; layers with caches of their own."
    def put(name, **files):
        for path, text in files.items():
            to = tmp_path / name / "cs231n" / path.replace("__", "/").replace("_py", ".py")
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(text)
    course = NET.replace("HIDDEN", "affine_relu_forward").replace("BACK", "affine_relu_backward")
    put("course", classifiers__fc_net_py=course)
    put("absolute", classifiers__fc_net_py=course.replace("..layer_utils", "cs231n.layer_utils"))
    put("helpers", classifiers__fc_net_py=NET.replace("HIDDEN", "hidden_forward").replace("BACK", "hidden_back"), layer_utils_py=OWN)
    put("caches", classifiers__fc_net_py=course, layer_utils_py=OWN.replace("hidden_forward", "affine_relu_forward").replace("hidden_back", "affine_relu_backward"))
    put("broken", classifiers__fc_net_py=course, layer_utils_py="def affine_relu_forward(:", layers_py="import torch\nfrom .fast import *\nx = = 3")
    put("moved", solution_py=course)
    (tmp_path / "cells.ipynb").write_text(notebook("from cs231n.layers import *\nfrom cs231n.layer_utils import *", course.partition("\n")[2]))
    graded = {g["submission"]: g["results"]["TwoLayerNet"] for g in grade(tmp_path, ["TwoLayerNet"], seconds=120)}
    assert {n: r["state"] for n, r in graded.items()} == dict.fromkeys(["absolute", "broken", "caches", "cells.ipynb", "course", "helpers", "moved"], "right"), graded


def test_words_for_what_cannot_be_graded(tmp_path):
    with pytest.raises(ValueError, match="needs to be a folder"): grade(tmp_path / "none")
    with pytest.raises(ValueError, match="no notebook and no Python file"): grade(tmp_path)
