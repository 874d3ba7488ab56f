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
NOTEBOOKS = sorted((ROOT / "nbs").glob("*.ipynb"))
names = [p.stem for p in NOTEBOOKS]


def files(root):
    "What the notebooks are and what is exported from them: path to bytes."
    found = [*(root / "nbs").glob("*.ipynb"), *(root / "cs231n_lit").rglob("*.py")]
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
    listed = re.findall(r"[\w.]+\.ipynb", (ROOT / "_quarto.yml").read_text())
    assert set(listed) >= {p.name for p in NOTEBOOKS}
    assert set(listed) <= {p.name for p in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_cells_import_or_compute(path):
    "A cell that does both is run while the site is built, where the cells before it were not."
    mixed = []
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "code" or re.match(r"#\| *(export|eval: *false)", cell.source): continue
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
