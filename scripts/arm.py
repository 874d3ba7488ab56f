"""Builds the kernels for 64-bit ARM and runs their tests, and those of the layers, on an ARM Python under emulation.

    python scripts/arm.py                        a twentieth of the random layers of each kind, and every other test
    python scripts/arm.py --layers 1             all of them (hours)
    python scripts/arm.py tests/test_layers.py -k affine      other tests; arguments go to pytest
    python scripts/arm.py --loops                the instructions of the tile's inner loops, counted

Needs Debian or Ubuntu with the packages qemu-user, gcc-aarch64-linux-gnu and apt, and the environment of `make setup`. Python comes from Debian's
packages for arm64, NumPy and the rest from wheels; they are unpacked in build/arm, and nothing is installed. Emulation says whether results are
right and nothing about speed, so tests of speed are left out. What can be known of speed without the machine is in the compiled loops: --loops.
"""
import argparse
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / "build" / "arm"
DEBIAN, SITE, PACKAGE = HOME / "debian", HOME / "site", HOME / "package"
COMPILER = "aarch64-linux-gnu-gcc"
TOOLS = {"qemu-aarch64": "qemu-user", COMPILER: "gcc-aarch64-linux-gnu", "apt-get": "apt", "dpkg-deb": "dpkg"}  # and the packages that they are in
TESTS = ["tests/test_kernels.py", "tests/test_conv_kernels.py", "tests/test_fast_layers.py", "tests/test_layers.py", "tests/test_normalization.py",
         "tests/test_convolution.py", "tests/test_pooling.py", "tests/test_reference_values.py"]


def missing():
    "What this machine lacks, in words; nothing if all is there."
    lacks = [f"{tool} (package {package})" for tool, package in TOOLS.items() if not shutil.which(tool)]
    return f"make test-arm needs {', '.join(lacks)}: on Debian and Ubuntu, apt install {' '.join(sorted({TOOLS[t.split()[0]] for t in lacks}))}" if lacks else ""


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], text=True, **options)
    if done.returncode: sys.exit(f"{' '.join(str(c) for c in command[:4])} ... failed\n{done.stdout or ''}{done.stderr or ''}")
    return done


def apt(tool, *args, **options):
    "apt with lists of its own, of packages for arm64."
    for folder in "lists/partial", "cache/archives/partial": (HOME / "apt" / folder).mkdir(parents=True, exist_ok=True)
    settings = {"APT::Architecture": "arm64", "APT::Architectures::": "arm64", "Dir::State::lists": HOME / "apt/lists", "Dir::Cache": HOME / "apt/cache",
                "Debug::NoLocking": 1, "Acquire::Languages": "none", "APT::Sandbox::User": "root"}
    return run(tool, *(f"-o{name}={value}" for name, value in settings.items()), *args, **options)


def unpack_python():
    "Debian's Python for arm64, its headers, and the libraries that it needs."
    apt("apt-get", "-qq", "update")
    python = re.search(r"^Depends:.*?(python3\.\d+)", apt("apt-cache", "show", "python3", capture_output=True).stdout, re.M)[1]
    needs = apt("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances",
                f"{python}-minimal", f"lib{python}-stdlib", "libstdc++6", capture_output=True).stdout
    names = {line for line in needs.splitlines() if re.match(r"lib|zlib1g|python3\.", line)}
    (HOME / "debs").mkdir(exist_ok=True)
    apt("apt-get", "-qq", "download", *sorted(names | {f"lib{python}-dev"}), cwd=HOME / "debs")
    for package in (HOME / "debs").glob("*.deb"): run("dpkg-deb", "-x", package, DEBIAN)


def unpack_wheels(version):
    "NumPy, pytest and what else the tests import, as wheels for ARM."
    values = dict(line.split(" = ", 1) for line in (ROOT / "settings.ini").read_text(encoding="utf8").splitlines() if " = " in line)
    wanted = re.findall(r"\S+", values["requirements"]) + re.findall(r"(?:pytest|hypothesis|cython)[<>=]\S+", values["dev_requirements"])
    platforms = [a for p in ("manylinux2014_aarch64", "manylinux_2_28_aarch64") for a in ("--platform", p)]
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", SITE, *platforms, "--python-version", version, "--implementation", "cp", "--only-binary=:all:", *wanted)


def python():
    "The ARM Python and its version, such as 3.11."
    found = sorted((DEBIAN / "usr/bin").glob("python3.*[0-9]"))
    return (found[0], found[0].name.removeprefix("python")) if found else (None, None)


def emulated(executable):
    "A command that runs the ARM Python. Python takes it for its own path, so that tests can start it again."
    command = HOME / "python"
    libraries = f"{DEBIAN}/usr/lib/aarch64-linux-gnu:{DEBIAN}/lib/aarch64-linux-gnu"
    command.write_text(f'#!/bin/sh\nexec qemu-aarch64 -L "{DEBIAN}" -0 "$0" -E LD_LIBRARY_PATH="{libraries}" -E PYTHONHOME="{DEBIAN}/usr" "{executable}" "$@"\n', encoding="utf8")
    command.chmod(0o755)
    return command


def setup_py():
    "The names in setup.py, which is not run as a build."
    with mock.patch("setuptools.setup"): return runpy.run_path(str(ROOT / "setup.py"))


PROBE = """
def probe(a: Real[::1], b: Real[::1], out: Real[::1], table: Int[::1], size: Size):
    product(pointer(a), cython.address(table[0]), cython.address(table[0]), pointer(b), pointer(out), pointer(out), size)
"""


def tile_object(folder, compiler=COMPILER):
    "The tile alone, compiled for ARM: the path of an object file in `folder`, which stands for any Python with headers."
    build = setup_py()
    build["SOURCES"]["conv"] = ["tile"]
    (Path(folder) / "tile.py").write_text(build["source_of"]("conv", "neon", compiler) + PROBE, encoding="utf8")
    run(*build["cython_command"]("tile"), cwd=folder, capture_output=True)
    # Debian's Python.h asks for another folder's pyconfig.h on each machine; this machine's will do, as nothing of it is run
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    theirs, own = Path(folder, "aarch64-linux-gnu", version), Path("/usr/include", sysconfig.get_config_var("MULTIARCH") or "", version, "pyconfig.h")
    theirs.mkdir(parents=True, exist_ok=True)
    (theirs / "pyconfig.h").write_text(f'#include "{own}"\n', encoding="utf8")
    include = ["-I", sysconfig.get_paths()["include"], "-I", str(folder), "-fPIC", "-D_POSIX_C_SOURCE=200809L"]
    run(*compiler.split(), *flags(build, "conv", compiler), *include, "-c", "tile.c", "-o", "tile.o", cwd=folder, capture_output=True)
    return Path(folder) / "tile.o"


def inner_loops(path):
    "Of each innermost loop with multiply-adds in an object file: numbers in a vector, multiply-adds, instructions, loads, and uses of the stack."
    text = run("aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", path, capture_output=True).stdout
    lines = [(int(place, 16), code.split("//")[0].strip()) for place, code in re.findall(r"^ *([0-9a-f]+):\t(.*)$", text, re.M)]
    index, found = {place: i for i, (place, _) in enumerate(lines)}, []
    for end, (place, code) in enumerate(lines):
        jump = re.match(r"(?:b\.\w+|cbnz\s+\w+,)\s+([0-9a-f]+) <", code)
        if not jump or not 0 <= (start := index.get(int(jump[1], 16), end + 1)) <= end: continue
        loop = [code for _, code in lines[start:end + 1]]
        adds = [code for code in loop if code.startswith("fmla")]
        if adds and not any(re.match(r"b\b|cb|ret", code) for code in loop[:-1]):
            found.append({"numbers": 4 if ".4s" in adds[0] else 2, "multiply-adds": len(adds), "instructions": len(loop),
                          "loads": sum(code.startswith("ld") for code in loop), "stack": sum("[sp" in code for code in loop)})
    return sorted(found, key=lambda loop: (-loop["numbers"], -loop["multiply-adds"]))


def build_kernels(version):
    "Translate the kernels here and compile them for ARM, beside a copy of the package."
    build = setup_py()
    shutil.rmtree(PACKAGE, ignore_errors=True)
    shutil.copytree(ROOT / "cs231n_lit", PACKAGE / "cs231n_lit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    work = HOME / "kernels"
    work.mkdir(exist_ok=True)
    includes = [DEBIAN / f"usr/include/python{version}", DEBIAN / "usr/include"]
    compiler = run(COMPILER, "--version", capture_output=True).stdout.split("\n")[0]
    modules = {build["SHARED"]: ["-O1"]} | {f"cs231n_lit.kernels._{kernel}_neon": flags(build, kernel) for kernel in build["SOURCES"]}
    for module, options in modules.items():
        name = module.rpartition(".")[2]
        if module != build["SHARED"]: (work / f"{name}.py").write_text(build["source_of"](name[1:].split("_")[0], "neon", compiler), encoding="utf8")
        run(*build["cython_command"](module), cwd=work, capture_output=True)
        target = PACKAGE / f"{module.replace('.', '/')}.cpython-{version.replace('.', '')}-aarch64-linux-gnu.so"
        run(COMPILER, "-shared", "-fPIC", *options, *(f"-I{i}" for i in includes), work / f"{name}.c", "-o", target)


def flags(build, kernel, compiler=COMPILER):
    "setup.py's flags for a kernel, as far as the compiler takes them."
    def takes(group): return not subprocess.run([*compiler.split(), "-Werror", *group, "-xc", "-c", "-", "-o", os.devnull], input="int f(int x) { return x + 1; }\n", text=True, capture_output=True).returncode
    return [flag for group in build["FLAGS"] + build["FLAGS_OF"][kernel] if takes(group) for flag in group]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=float, default=.05, help="how many of the random layers of each kind, of 1")
    parser.add_argument("--loops", action="store_true", help="count the instructions of the tile's inner loops")
    args, more = parser.parse_known_args()
    if args.loops:
        with tempfile.TemporaryDirectory() as folder:
            for loop in inner_loops(tile_object(folder)): print(", ".join(f"{name} {value}" for name, value in loop.items()))
        return
    if lacks := missing(): sys.exit(lacks)
    HOME.mkdir(parents=True, exist_ok=True)
    if not python()[0]: unpack_python()
    executable, version = python()
    if not SITE.exists(): unpack_wheels(version)
    build_kernels(version)
    arm = emulated(executable)
    env = {**os.environ, "PYTHONPATH": f"{PACKAGE}:{SITE}:{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg", "OPENBLAS_NUM_THREADS": "1",
           "CS231N_LIT_NUM_THREADS": "2", "CS231N_LIT_LAYERS": str(args.layers)}
    run(arm, "-c", "from cs231n_lit.fast_layers import status; s = status(); print(s); assert s['isa'] == 'aarch64' and not s['stale']", cwd=HOME, env=env)
    files = [] if any(arg.partition("::")[0].endswith(".py") for arg in more) else TESTS
    sys.exit(subprocess.run([arm, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not speed", *more, *files], cwd=ROOT, env=env).returncode)


if __name__ == "__main__": main()
