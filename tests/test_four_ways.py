"""The tabs "Four ways": each layer's loops, NumPy, compiled and PyTorch code gives the same output and gradients, and was timed."""
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cs231n_lit._pages import LAYERS, duration, error

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "benchmarks/four_ways.py"
spec = importlib.util.spec_from_file_location("four_ways", SCRIPT)
four_ways = importlib.util.module_from_spec(spec)
spec.loader.exec_module(four_ways)
TITLES = {"Loops": "loops", "NumPy": "numpy", "Compiled": "compiled", "PyTorch": "torch"}
PAGES = sorted({page for page, _, _ in LAYERS.values()})


def tabs(page):
    "What is defined in each tab of a page, as (title, name) in the page's order."
    found, title = [], None
    for cell in json.loads((ROOT / f"nbs/{page}.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = re.findall(r"^#+ (.+)", source, re.M)
            if title or "panel-tabset" in source: title = headings[-1] if headings else title
            if re.search(r"^:::$", source, re.M): title = None
        elif title: found += [(title, name) for name in re.findall(r"^def (\w+)", source, re.M)]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_each_way_stands_in_its_tab(page):
    ways = [(title, name) for title, name in tabs(page) if name.rpartition("_")[2] in TITLES.values()]
    assert ways and all(name.endswith("_" + TITLES[title]) for title, name in ways)
    layers = {layer: [name for _, name in ways if name.startswith(layer + "_")] for layer, (p, _, _) in LAYERS.items() if p == page}
    uncompiled = {"softmax_loss"}
    for layer, found in layers.items():
        assert [f"{layer}_{way}" for way in TITLES.values() if way != "compiled" or layer not in uncompiled] == [n for n in found if n.rpartition("_")[0] == layer]


@pytest.mark.parametrize("layer", LAYERS)
def test_ways_agree_with_the_fixtures(layer):
    "Output and every gradient."
    errors = {way: error(f) for way, f in four_ways.ways(layer).items()}
    assert len(errors) >= 2 and max(errors.values()) < 1e-12


def test_a_wrong_way_is_noticed():
    def relu_wrong(x, dout): return x.clip(0), dout
    assert error(relu_wrong) > 0.1


def test_pytorch_tabs_compute_the_fixtures():
    "Run where PyTorch is: in this Python, or in the one that the environment variable TORCH_PYTHON names."
    python = os.environ.get("TORCH_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import torch"], capture_output=True).returncode:
        pytest.skip("PyTorch is not installed; name a Python that has it in TORCH_PYTHON")
    said = subprocess.run([python, SCRIPT, "--errors", "torch"], capture_output=True, text=True, check=True).stdout
    errors = json.loads(said)
    assert set(errors) == {f"{layer}_torch" for layer in LAYERS} and max(errors.values()) < 1e-12


def test_every_way_was_timed():
    times = json.loads(four_ways.TIMES.read_text(encoding="utf-8"))["milliseconds"]
    assert {layer: set(ms) for layer, ms in times.items()} == {layer: {*four_ways.ways(layer), "torch"} for layer in LAYERS}
    assert min(ms for layer in times.values() for ms in layer.values()) > 0


def test_pages_show_the_times():
    "The tables on the pages are those of the file."
    times = json.loads(four_ways.TIMES.read_text(encoding="utf-8"))["milliseconds"]
    for layer, (page, _, _) in LAYERS.items():
        text = (ROOT / f"nbs/{page}.ipynb").read_text(encoding="utf-8")
        assert f"| PyTorch |  | {duration(times[layer]['torch'])} | 1.00" in text, layer
