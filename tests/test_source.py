"""The notebooks are the source: what is made from them has to be in step with them."""
import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not any(part[0] in "._" for part in p.relative_to(ROOT).parts))
names = [p.relative_to(ROOT / "nbs").with_suffix("").as_posix() for p in NOTEBOOKS]


def files(root):
    "What the notebooks are and what is exported from them: path to bytes."
    found = [*(root / "nbs").rglob("*.ipynb"), *(root / "cs231n_lit").rglob("*.py")]
    return {str(p.relative_to(root)): p.read_bytes() for p in found}


def script(name):
    "A module of scripts/."
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_exporting_and_cleaning_change_nothing(tmp_path):
    for name in ("nbs", "cs231n_lit"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "settings.ini", tmp_path)
    before = files(tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([command], cwd=tmp_path, check=True, env={**os.environ, "PATH": path})
    after = files(tmp_path)
    assert [p for p in before | after if before.get(p) != after.get(p)] == []


def test_readme_says_what_the_home_page_says():
    words = lambda text: re.findall(r"\w+", text)
    made = script("make_readme").readme()
    assert words((ROOT / "README.md").read_text(encoding="utf-8")) == words(made)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_outputs_name_no_folder_of_the_machine_that_ran_them(path):
    shown = [str(o.get("text", "")) + str({k: v for k, v in o.get("data", {}).items() if k.startswith("text/")}) for c in nbformat.read(path, 4).cells for o in c.get("outputs", ())]
    assert re.findall(r"/(?:home|root|work|Users|private)/\S*", "\n".join(shown)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_notebook_was_run_from_top_to_bottom(path):
    "No cell shows an error, and cells that end in a value show one."
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    errors = [o.ename for c in cells for o in c.outputs if o.output_type == "error"]
    assert errors == []
    silent = ("import ", "from ", "def ", "class ", "@", "#")
    if any(not c.source.lstrip("#|% ").startswith(silent) and c.source for c in cells):
        assert sum(len(c.outputs) for c in cells) > 0, "no cell has an output"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_notebook_tells_its_readers(path):
    "A title, a line that says what the page gives, and more words than lines of code."
    cells = nbformat.read(path, 4).cells
    text = [c.source for c in cells if c.cell_type == "markdown"]
    assert re.match(r"# .+\n> .+", text[0]), "the page opens with a title and a one-line quote"
    pictures = [c for c in cells if c.cell_type == "code" and any("image/png" in o.get("data", {}) for o in c.outputs)]
    assert [c.source[:60] for c in pictures if "#| hide" not in c.source and not ("fig-cap" in c.source and "fig-alt" in c.source)] == []


def test_every_page_is_in_the_sidebar():
    listed = re.findall(r"[\w./]+\.ipynb", (ROOT / "_quarto.yml").read_text())
    assert set(listed) == {f"{name}.ipynb" for name in names}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_cells_import_or_compute(path):
    "A cell that does both is run while the site is built, where the cells before it were not."
    mixed = []
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code" or re.match(r"#\| *(export|eval: *false)", cell.source) or "cs231n_lit[pages]" in cell.source: continue
        kinds = {isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(re.sub(r"^%.*", "", cell.source, flags=re.M)).body}
        if kinds == {True, False}: mixed.append(cell.source[:80])
    assert mixed == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_the_title_has_a_cell_of_its_own(path):
    "nbdev turns the whole title cell into metadata, so text behind title and quote would be lost."
    first = next(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown")
    assert re.fullmatch(r"# [^\n]+(\n> [^\n]+)+", first)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_no_cell_warned(path):
    "Warnings on a page are noise, and carry the paths of the machine it was run on."
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert [o.text[:200] for c in cells for o in c.outputs if o.output_type == "stream" and o.name == "stderr"] == []


DERIVATIONS = [p for p in NOTEBOOKS if p.parent.name == "nbs" and re.match(r"0[4-8]_|11_|12_", p.stem)]
IN_CODE = {r"\hat x": "x_hat", r"\tilde x": "x_pad", r"\mu": "mu", r"\gamma": "gamma", r"\beta": "beta"}
OTHER_NAMES = {"mu": ["mean"], "v": ["var", "velocity"], "s": ["std", "cache"], "L": ["loss"], "H": ["conv_output_size"], "m": ["mask", "weights"], "Var": ["var"]}


def results(formula):
    "What a formula says how to compute: of each of its equations, the first symbol on the left, as the code writes it."
    text = re.sub(r"[_^]\s*(?:\{(?:[^{}]|\{[^{}]*\})*\}|\\?\w|\S)|\\mathbb\{E\}", "", formula)
    for tex, name in IN_CODE.items(): text = re.sub(re.escape(tex) + r"(?![a-zA-Z])", f" {name} ", text)
    text = re.sub(r"\bd\s+(?=\w)", "d", re.sub(r"\\(?:text|mathrm)\{(?:\\,\s*)?(\w+)\s*\}", r"\1", text))
    for equation in re.split(r"\\q?quad|\\Longrightarrow|\\Rightarrow", text):
        left = re.match(r"(.*?)(?:=|\\leftarrow|\\approx|\\mathrel)", re.sub(r"\\frac\{\\partial.*?\}\{\\partial.*?\}", "", equation), re.S)
        symbol = left and re.search(r"(?<![\\\w])(?!e\b)[a-zA-Z]\w*", left[1])
        if symbol: yield symbol[0]


def is_named(symbol, words):
    "Is one of the words the symbol's name, or one that begins or ends with it, such as `v_along` or `log_p`?"
    return any(re.fullmatch(rf"(?:\w+_)?{name}\d?(?:_\w+)?", word) for name in [symbol, *OTHER_NAMES.get(symbol, [])] for word in words)


def formulas(path, reach=4):
    "Each displayed formula, and the code of the cells that follow it."
    cells = nbformat.read(path, 4).cells
    for i, cell in enumerate(cells):
        after = "\n".join(c.source for c in cells[i + 1:i + 1 + reach] if c.cell_type == "code" and not re.match(r"#\| *eval: *false", c.source))
        if cell.cell_type == "markdown": yield from ((f, after) for f in re.findall(r"\$\$(.*?)\$\$", cell.source, re.S))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_code_follows_each_formula(path):
    assert [f for f, code in formulas(path) if not code.strip()] == []


@pytest.mark.parametrize("path", DERIVATIONS, ids=[p.stem for p in DERIVATIONS])
def test_code_computes_what_a_formula_says(path):
    "The symbol on the left of each equation is a name in the code of the next four cells."
    missing = [(symbol, f) for f, code in formulas(path) for symbol in results(f) if not is_named(symbol, re.findall(r"[A-Za-z_]\w*", code))]
    assert missing == []


def test_formulas_without_code_are_noticed():
    assert list(results(r"d\hat x_{nd} = \text{dout}_{nd}\, \gamma_d \qquad \mu_d = \frac1N \sum_n x_{nd}")) == ["dx_hat", "mu"]
    assert list(results(r"\frac{\partial\, \text{out}_j}{\partial x_i} = 1 \qquad\Longrightarrow\qquad \text{dx}_i = \text{dout}_i")) == ["dx"]
    assert is_named("mu", ["mean"]) and is_named("p", ["log_p"]) and not is_named("dx", ["x", "dout"])


@pytest.mark.parametrize("path", DERIVATIONS[:-1], ids=[p.stem for p in DERIVATIONS[:-1]])
def test_every_backward_pass_has_three_proofs(path):
    "Each one is run in the cells before a table of all three, in which none fails."
    cells = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    backward = {name for c in cells if "export" in c.source for name in re.findall(r"^def ([a-z]\w*(?:_backward\w*|_loss))", c.source, re.M)}
    proved = set()
    for i, cell in enumerate(cells):
        tables = [o.data["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {})]
        if any("| numeric gradient | PyTorch | identity |" in t and "✗" not in t for t in tables):
            proved |= {name for c in cells[max(0, i - 5):i + 1] for name in re.findall(r"\w+", c.source)}
    assert backward and backward - proved == set()
