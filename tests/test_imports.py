"""Importing: quickly, silently, and without what only drawing or downloading needs."""
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cs231n_lit"
MODULES = sorted("cs231n_lit." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in PACKAGE.rglob("*.py")
                 if p.stem[0] != "_" and p.parent.name != "kernels")  # those are compiled; their sources need Cython


def run(code): return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)


def test_the_package_is_imported_silently():
    done = run("import cs231n_lit")
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("name", ["cs231n_lit", *MODULES])
def test_nothing_is_imported_before_it_is_needed(name):
    heavy = "matplotlib imageio PIL tqdm pooch cython hypothesis IPython"
    done = run(f"import sys, {name}; print([m for m in {heavy!r}.split() if m in sys.modules])")
    assert done.stdout == "[]\n" and done.stderr == ""


def test_importing_takes_little_longer_than_importing_numpy():
    "Measured: 0.1 s, with NumPy already there. The limit is loose, for busy machines."
    modules = ", ".join(m for m in MODULES)
    done = run(f"import numpy, time; t = time.process_time(); import {modules}; print(time.process_time() - t)")
    assert float(done.stdout) < .5
