"""Every page runs where the reader is: with what `pip install cs231n_lit[pages]` puts into an empty environment, each notebook alone in a folder.

The wheel is built from a copy of the source, the environment made by venv and pip, and `run_pages.py` runs the notebooks there; one of them
runs in Jupyter's kernel, too. Cells marked slow, or not to be evaluated, are left out.
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {str(p.relative_to(ROOT / "nbs").with_suffix("")): p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if not p.parent.name.startswith(".")}
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "docs", "_proc", "tests", "benchmarks", "runs", "*.so", "*.pyd", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
pytestmark = pytest.mark.filterwarnings("default")


def clean():
    "The environment variables without those that lead back to this repository or to data."
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CS231N_LIT", "COVERAGE")) and k not in ("VIRTUAL_ENV", "MPLBACKEND")}


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean(), **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    "The Python of an environment into which the wheel and what it asks for were installed."
    folder = tmp_path_factory.mktemp("elsewhere")
    source = shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    if (ROOT / "build/kernels").exists(): shutil.copytree(ROOT / "build/kernels", source / "build/kernels")  # what is compiled already
    run(sys.executable, "-c", "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])", folder, cwd=source)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment")
    python = folder / "environment" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--no-compile", f"{next(folder.glob('*.whl'))}[pages]", cwd=folder)
    shutil.rmtree(source)
    return python


def errors_of(notebooks, folder, python):
    "What goes wrong in each notebook, alone in a folder of its own; an empty text if nothing does."
    said = run(python, ROOT / "tests/run_pages.py", folder, *notebooks, cwd=folder.parent)
    return json.loads(said.splitlines()[-1])


@pytest.fixture(scope="module")
def errors(python, tmp_path_factory):
    "The error of each page, by its file."
    return errors_of(NOTEBOOKS.values(), tmp_path_factory.mktemp("pages") / "each", python)


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_the_page_runs(page, errors):
    assert errors[str(NOTEBOOKS[page])] == ""


def test_a_page_runs_in_jupyter(python, tmp_path):
    "In the kernel that the extra brings."
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(argv=[str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name="Python", language="python")
    page = NotebookClient(nbformat.read(NOTEBOOKS["11_layer_utils"], 4), km=manager, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    page.execute(cleanup_kc=True, env=clean() | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"})


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_the_page_installs_what_it_needs(page):
    "On Colab, say: its first cell, folded away, is the same on every page. A new page takes it from an old one."
    first, model = (nbformat.read(NOTEBOOKS[name], 4).cells[0] for name in (page, "index"))
    assert "cs231n_lit[pages]" in first.source and (first.source, first.metadata) == (model.source, model.metadata)


def test_binder_installs_what_the_pages_need():
    lines = [line for line in (ROOT / "binder/requirements.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert lines == [".[pages]"] and not (ROOT / "runtime.txt").exists()


def test_the_environment_is_elsewhere(python, tmp_path):
    "The package comes from the wheel, with what it compiled here and nothing that only developing needs."
    code = "import cs231n_lit, importlib.util as u, json; print(json.dumps([cs231n_lit.__file__, [m for m in ('nbdev', 'pytest', 'playwright', 'torch') if u.find_spec(m)]]))"
    where, more = json.loads(run(python, "-c", code, cwd=tmp_path))
    assert Path(where).is_relative_to(python.parent.parent) and more == []


def test_an_error_is_noticed(python, tmp_path):
    "A page that reads a file of the repository by its path, one that imports what the extra does not bring, and one whose process dies."
    lines = {"open('../benchmarks/bench.py')": "FileNotFoundError", "import nbdev": "ModuleNotFoundError", "import os; os._exit(3)": "its process ended with 3", "2 + 2": ""}
    pages = []
    for line in lines:
        pages.append(tmp_path / f"{len(pages)}.ipynb")
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line)]), pages[-1])
    found = errors_of(pages, tmp_path / "each", python)
    for page, kind in zip(pages, lines.values()): assert (kind in found[str(page)]) and (found[str(page)] == "") == (kind == "")
