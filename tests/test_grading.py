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


def test_words_for_what_cannot_be_graded(tmp_path):
    with pytest.raises(ValueError, match="needs to be a folder"): grade(tmp_path / "none")
    with pytest.raises(ValueError, match="no notebook and no Python file"): grade(tmp_path)
