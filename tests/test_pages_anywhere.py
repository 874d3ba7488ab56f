"""Every page runs where the reader is: with what `pip install cs231n_lit[pages]` puts into an empty environment, each notebook alone in a folder.

The wheel is built from a copy of the source, the environment made by venv and pip, and the notebooks run in Jupyter's kernel there,
as many at once as there are cores. Cells marked slow, or not to be evaluated, are left out, as `nbdev_test` does.
"""
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {str(p.relative_to(ROOT / "nbs").with_suffix("")): p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if not p.parent.name.startswith(".")}
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "docs", "_proc", "tests", "benchmarks", "runs", "*.so", "*.pyd", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
SKIPPED = re.compile(r"^#\| *(slow\b|eval: *false)", re.M)
COLOURS = re.compile(r"\x1b\[[\d;]*m")
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


async def error_of(notebook, folder, python):
    "What goes wrong when a notebook runs in a folder of its own; an empty text if nothing does."
    nb = nbformat.read(notebook, 4)
    nb.cells = [c for c in nb.cells if not (c.cell_type == "code" and SKIPPED.search(c.source))]
    folder.mkdir(parents=True)
    manager = AsyncKernelManager()
    manager._kernel_spec = KernelSpec(argv=[str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name="Python", language="python")
    client = NotebookClient(nb, km=manager, timeout=600, resources={"metadata": {"path": str(folder)}})
    try: await client.async_execute(cleanup_kc=True, env=clean() | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as e: return COLOURS.sub("", str(e))[-3000:]
    return ""


@pytest.fixture(scope="module")
def errors(python, tmp_path_factory):
    "The error of each page, by name."
    folder = tmp_path_factory.mktemp("pages")
    async def all_of_them():
        turn = asyncio.Semaphore(os.cpu_count() or 1)
        async def one(name):
            async with turn: return await error_of(NOTEBOOKS[name], folder / name, python)
        return dict(zip(NOTEBOOKS, await asyncio.gather(*map(one, NOTEBOOKS))))
    return asyncio.run(all_of_them())


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_the_page_runs(page, errors):
    assert errors[page] == ""


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
    "A page that reads a file of the repository by its path, and one that imports what the extra does not bring."
    for line in "open('../benchmarks/bench.py')", "import nbdev":
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line)]), tmp_path / "page.ipynb")
        error = asyncio.run(error_of(tmp_path / "page.ipynb", tmp_path / str(len(line)), python))
        assert "FileNotFoundError" in error or "ModuleNotFoundError" in error
