"""Installing, as people do it: wheel, sdist and editable, several Pythons, oldest and newest NumPy, no compiler, odd paths, no write permission.

Slow, but for what looks at a release's files only. Pythons are looked for on PATH as python3.11, python3.12, …, and in CS231N_LIT_PYTHONS,
a list of interpreters as PATH is one of folders. Packages come from where pip finds them.
"""
import ast
import configparser
import ctypes
import importlib.util
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
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "docs", "_proc", "runs", "*.so", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
TRAIN = "train --num-epochs 1 --batch-size 1000 --num-filters 2 --filter-size 3 --hidden-dim 5 --num-train-samples 50 --num-val-samples 50".split()
posix = pytest.mark.skipif(os.name != "posix", reason="written for Linux and macOS")


def slow(test): return pytest.mark.slow(posix(test))


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
        shutil.copy(ROOT / "tests/installed.py", work)
        run(self.python, "installed.py", *([] if compiled else ["--pure"]), cwd=work, **options)
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


@slow
def test_sdist_holds_all_that_is_needed_and_nothing_compiled(sdist):
    with tarfile.open(sdist) as archive: names = {n.partition("/")[2] for n in archive.getnames()}
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "cs231n_lit").rglob("*") if p.is_file() and p.suffix not in (".so", ".pyd", ".pyc")}
    assert {"setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "tests/installed.py", "nbs/06_convolution.ipynb", *package} <= names
    assert not [n for n in names if n.endswith((".so", ".pyd", ".c", ".pyc"))]


@slow
@pytest.mark.parametrize("version, oldest", [("3.11", True), ("3.12", False), ("3.13", False), ("3.14", False)])
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


@slow
def test_the_wheel_for_any_machine(sdist, tmp_path):
    "Made from the sdist without a compiler; has no kernels, and says so once."
    env = Env("3.11", tmp_path / "environment")
    env.pip("wheel", "--no-deps", "--wheel-dir", tmp_path, sdist, CS231N_LIT_PURE="1", CC="/bin/false")
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive: names = archive.namelist()
    assert wheel.name.endswith("-py3-none-any.whl") and not [n for n in names if n.endswith((".so", ".pyd", ".c"))] and "cs231n_lit/pages/06_convolution.ipynb" in names
    env.pip("install", wheel)
    assert env.check(compiled=False).count("the compiled kernels are missing") == 1


@slow
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


@slow
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


# ------------------------------------------------------------ what a release is made with: its files, read

def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path):
    "The files that state the version, with a newest entry that is not released."
    for name in script("release").PLACES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(re.sub(r"^## .*$", "## 0.1.0 (unreleased)", text, count=1, flags=re.M), encoding="utf-8")
    return tmp_path


def test_every_place_states_the_same_version():
    release = script("release")
    assert {release.found(ROOT, name) for name in release.PLACES} == {settings()["version"]}


def test_a_release_changes_all_places_at_once(repository):
    release = script("release")
    release.release(repository, "1.2.3", "2030-01-02")
    assert release.disagreements(repository, "1.2.3") == ["cs231n_lit/__init__.py says 0.1.0, not 1.2.3"]  # exporting writes that
    assert "## 1.2.3 (2030-01-02)" in (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"ends in \(unreleased\); got '## 1.2.3"): release.release(repository, "1.2.4", "2030-01-03")


def test_a_tag_that_does_not_fit_is_refused(repository):
    release = script("release")
    wrong = release.disagreements(repository, "0.1.0")
    assert wrong == ["the newest entry of CHANGELOG.md has no date: ## 0.1.0 (unreleased)"]
    assert len(release.disagreements(repository, "0.2.0")) == 5
    with pytest.raises(ValueError, match="0.0.9 is older than 0.1.0"): release.release(repository, "0.0.9", "2030-01-02")
    for tag in "0.1.0", "v0.1", "release":
        assert subprocess.run([sys.executable, ROOT / "scripts/release.py", "--check", tag], capture_output=True).returncode == 2


def build_script(*names):
    "Functions and values of setup.py, which itself builds when it is run."
    body = [n for n in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body if isinstance(n, (ast.Import, ast.ImportFrom, ast.FunctionDef))]
    found = {}
    exec(compile(ast.Module(body, []), "setup.py", "exec"), found)
    return [found[name] for name in names]


def test_windows_is_built_with_clang_or_not_at_all(tmp_path, monkeypatch):
    clang_cl, spelled = build_script("clang_cl", "spelled")
    assert spelled(["-O3", "-mllvm"], "msvc") == ["/clang:-O3", "/clang:-mllvm"] and spelled(["-O3"], "unix") == ["-O3"]
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATHEXT", ".exe")
    cl = tmp_path / "VC/Tools/MSVC/14.40/bin/Hostx64/x64/cl.exe"
    assert clang_cl(str(cl)) is None and clang_cl("cl.exe") is None
    name = "clang-cl.exe" if os.name == "nt" else "clang-cl"
    for folder in tmp_path / "VC/Tools/Llvm/x64/bin", tmp_path / "nowhere":
        folder.mkdir(parents=True)
        (folder / name).touch(mode=0o755)
        assert clang_cl(str(cl)) == str(folder / name)


@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
def test_flags_for_windows_are_taken_by_clang_in_its_place(tmp_path):
    "Clang can play clang-cl anywhere, as long as no header of Windows is asked for."
    spelled, = build_script("spelled")
    (tmp_path / "t.c").write_text("int f(int x) { return x + 1; }")
    takes = lambda *flags: subprocess.run(["clang", "--driver-mode=cl", "/WX", *spelled(flags, "msvc"), "/c", tmp_path / "t.c", f"/Fo{tmp_path}/t.obj"], capture_output=True).returncode == 0
    assert takes("-O3") and takes("-march=x86-64-v3") and takes("-mllvm", "-unroll-full-max-count=7") and takes("-DCYTHON_INLINE=inline __attribute__((always_inline))")
    assert not takes("--param=max-completely-peel-times=7")


def test_wheels_are_built_for_every_python_that_is_tried():
    import tomllib
    wheels = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]
    tried = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))[1]
    versions = re.findall(r"3\.\d+", tried)
    assert wheels["build"].split() == [f"cp{v.replace('.', '')}-*" for v in versions] and versions[0] == settings()["min_python"]
    assert re.findall(r"3\.\d+", re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))[1]) == versions
    assert all((ROOT / path).exists() for path in wheels["test-sources"])
