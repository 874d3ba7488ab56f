"""Installing, as people do it: wheel, sdist and editable, several Pythons, oldest and newest NumPy, no compiler, odd paths, no write permission.

Slow. Pythons are looked for on PATH as python3.11, python3.12, python3.13, and in CS231N_LIT_PYTHONS, a list of interpreters
as PATH is one of folders. Packages come from where pip finds them.
"""
import configparser
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "docs", "_proc", "nbs", "tests", "runs", "*.so", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
VERSIONS = ("3.11", "3.12", "3.13")
TRAIN = "train --num-epochs 1 --batch-size 1000 --num-filters 2 --filter-size 3 --hidden-dim 5 --num-train-samples 50 --num-val-samples 50".split()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="written for Linux and macOS")]


def settings():
    parser = configparser.ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf8")
    return parser["DEFAULT"]


def interpreter(version):
    "The path of a Python of this version, or None."
    listed = [p for p in os.environ.get("CS231N_LIT_PYTHONS", "").split(os.pathsep) if p]
    for path in (*listed, shutil.which(f"python{version}"), sys.executable):
        if path and run(path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version: return path


def run(*command, **options):
    "A command's output; the test fails if the command does."
    given = {"env": environment(), **options}
    done = subprocess.run([str(c) for c in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **given)
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}"
    return done.stdout.strip()


def environment(**more):
    "Without what the surrounding tests may have set; the kernels quickly compiled."
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CS231N_LIT")) and k != "VIRTUAL_ENV"}
    return {**kept, "CS231N_LIT_CFLAGS": "-O1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "agg", **more}


class Env:
    "A virtual environment."
    def __init__(self, version, folder):
        if not (python := interpreter(version)): pytest.skip(f"no Python {version} here")
        self.version, self.folder, self.python = version, folder, folder / "bin" / "python"
        run(python, "-m", "venv", folder)

    def pip(self, *arguments, **more): return run(self.python, "-m", "pip", "--disable-pip-version-check", *arguments, env=environment(**more))

    def check(self, compiled=True, **options):
        "Everything an installed package has to do. Run in a folder that holds nothing of the source."
        work = self.folder.parent / "work"
        work.mkdir(exist_ok=True)
        python = lambda code: run(self.python, "-W", "error", "-c", code, cwd=work, **options)
        assert self.pip("check") == "No broken requirements found."
        assert python("import cs231n_lit") == ""
        assert python("from cs231n_lit import fast_layers as f; print(f.status()['compiled'])") == str(compiled)
        assert python("from importlib.resources import files; print((files('cs231n_lit') / 'py.typed').is_file())") == "True"
        out = run(self.folder / "bin" / "cs231n-lit", *TRAIN, cwd=work, **options)
        assert re.search(r"test accuracy +0\.\d", out) and (work / "runs/pictures-001/curves.png").exists(), out
        shutil.rmtree(work)
        return out


def requirements(oldest):
    "What the package needs, in the oldest versions it allows (NumPy 2.1 for Python 3.13) or in the newest."
    return [re.sub(r">=([\d.]+),.*", r"==\1.*", r) if oldest else r for r in settings()["requirements"].split()]


def source(folder):
    "A copy of what setup.py needs, without git and without anything compiled."
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    return folder


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    run(sys.executable, "-c", build, folder, cwd=source(folder / "source"))
    return next(folder.glob("*.tar.gz"))


def test_sdist_holds_all_that_is_needed_and_nothing_compiled(sdist):
    with tarfile.open(sdist) as archive: names = {n.partition("/")[2] for n in archive.getnames()}
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "cs231n_lit").rglob("*") if p.is_file() and p.suffix not in (".so", ".pyd", ".pyc")}
    assert {"setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE", "cs231n_lit/py.typed", *package} <= names
    assert not [n for n in names if n.endswith((".so", ".pyd", ".c", ".pyc"))]


@pytest.mark.parametrize("version, oldest", [("3.11", True), ("3.12", False), ("3.13", False)])
def test_sdist_and_its_wheel(version, oldest, sdist, tmp_path):
    "In an environment whose path has spaces."
    env = Env(version, tmp_path / "a b" / "environment with spaces")
    env.pip("install", *requirements(oldest))
    env.pip("wheel", "--no-deps", "--wheel-dir", tmp_path, sdist)
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive: names = archive.namelist()
    assert "cs231n_lit/py.typed" in names and any("kernels/_conv_v1" in n for n in names) and not any(n.startswith("tests") for n in names)
    env.pip("install", "--no-deps", wheel)
    env.check()


def test_editable_from_a_path_with_spaces_then_without_a_compiler(tmp_path):
    folder, env = source(tmp_path / "my own source"), Env("3.11", tmp_path / "environment")
    env.pip("install", "-e", folder)
    env.check()
    again = Env("3.11", tmp_path / "other environment")
    out = again.pip("install", "-v", source(tmp_path / "fresh"), CC="/bin/false")
    assert out.count("compiled kernels left out") == 1 and "install a C compiler" in out
    out = again.check(compiled=False)
    assert out.count("the compiled kernels are missing") == 1


def without_privileges():
    "The superuser, too, may then not write what is read-only: drops CAP_DAC_OVERRIDE, on Linux."
    if os.geteuid() == 0: ctypes.CDLL(None, use_errno=True).prctl(24, 1, 0, 0, 0)


def test_site_packages_that_cannot_be_written(tmp_path):
    env = Env("3.11", tmp_path / "environment")
    env.pip("install", source(tmp_path / "source"))
    folders = [env.folder, *(p for p in env.folder.rglob("*") if p.is_dir() and not p.is_symlink())]
    for p in folders: p.chmod(0o555)
    try:
        refused = subprocess.run(["touch", env.folder / "lib" / "new"], capture_output=True, preexec_fn=without_privileges)
        if refused.returncode == 0: pytest.skip("this user may write everywhere")
        env.check(preexec_fn=without_privileges)
    finally:
        for p in folders: p.chmod(0o755)
