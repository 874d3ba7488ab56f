"""`cs231n-lit status`: each piece of advice comes when its cause is there, and goes with it. The causes are brought about in processes of their own."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cs231n_lit import cli, fast_layers
from cs231n_lit._threads import _usable_cores
from cs231n_lit.kernels.compiled import choices

PACKAGE = Path(cli.__file__).parent
KEPT = {k: v for k, v in os.environ.items() if k not in ("CS231N_LIT_ISA", "CS231N_LIT_NUM_THREADS")}
compiled = pytest.mark.skipif(not fast_layers.status()["compiled"], reason="there are no compiled kernels here")


def ask(*words, environment={}, **options):
    "What `cs231n-lit status` prints."
    done = subprocess.run([sys.executable, "-W", "error", "-m", "cs231n_lit", "status", *words], env=KEPT | environment, capture_output=True, text=True, **options)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout


def advice(begins, **options):
    "The advice that begins with these words, and the facts."
    facts = json.loads(ask("--json", **options))
    return [a for a in facts["advice"] if a.startswith(begins)], facts


BEGINNINGS = ("This Python was", "CS231N_LIT_ISA", "There are no", "This processor", "The sources", "CS231N_LIT_NUM", "Of this machine's")


@pytest.fixture(scope="module")
def usual():
    return advice(BEGINNINGS)


@compiled
def test_as_it_should_be(usual):
    "Nothing to mend, but for what others do to this machine while the test runs."
    found, facts = usual
    limited = facts["usable"] < facts["cores"]
    assert len(found) == limited and facts["isa"] == facts["isas"][0] and facts["threads"] == facts["usable"]
    assert facts["compiler"] and facts["conv"] > 0 and facts["product"] > 0 and facts["ratio"] == facts["conv"] / facts["product"]


@compiled
def test_kernels_that_are_kept_off():
    found, facts = advice("CS231N_LIT_ISA", environment={"CS231N_LIT_ISA": "numpy"})
    assert found == [f"CS231N_LIT_ISA=numpy keeps the kernels for {facts['isas'][0]} from being used. Unset it."] and not facts["compiled"]


@compiled
@pytest.mark.skipif(len(choices()) < 2, reason="this processor has one instruction set")
def test_an_old_instruction_set(usual):
    best = usual[1]
    isas = best["isas"]
    if len(isas) < 2: pytest.skip("kernels were compiled for one instruction set")
    found, facts = advice("CS231N_LIT_ISA", environment={"CS231N_LIT_ISA": isas[-1]})
    assert found == [f"CS231N_LIT_ISA={isas[-1]} keeps the kernels for {isas[0]} from being used. Unset it."]
    assert facts["ratio"] < .8 * best["ratio"]  # measured: .43 beside 1.00


@pytest.fixture(scope="module")
def pure(tmp_path_factory):
    "The package as the wheel for any machine has it."
    folder = tmp_path_factory.mktemp("pure")
    shutil.copytree(PACKAGE, folder / "cs231n_lit", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    return folder


def test_no_kernels(pure):
    found, facts = advice("There are no compiled kernels", environment={"PYTHONPATH": str(pure)}, cwd=pure)
    assert len(found) == 1 and "--no-binary cs231n_lit" in found[0] and not facts["compiled"] and facts["isas"] == []


@compiled
@pytest.mark.skipif(len(choices()) < 2, reason="this processor has one instruction set")
def test_only_old_kernels(pure, tmp_path):
    shutil.copytree(pure, tmp_path, dirs_exist_ok=True)
    oldest = choices()[-1]
    if not (kernels := [*(PACKAGE / "kernels").glob(f"*_{oldest}.*"), *PACKAGE.glob("_cyutility.*")])[1:]: pytest.skip("they were not compiled")
    for file in kernels: shutil.copy(file, tmp_path / file.relative_to(PACKAGE.parent))
    assert len(advice("This processor has", environment={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)[0]) == 1


@compiled
def test_kernels_older_than_their_sources(pure, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "cs231n_lit", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "cs231n_lit/kernels/tile.py", "a") as f: f.write("\n")
    found, _ = advice("The sources of the kernels (conv, layers)", environment={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert len(found) == 1


@pytest.mark.skipif(_usable_cores() < 2, reason="needs two cores")
@pytest.mark.parametrize("threads, word", [(1, "leaves"), (99, "asks for more threads")])
def test_threads_that_do_not_fit_the_cores(threads, word):
    found, facts = advice("CS231N_LIT_NUM_THREADS", environment={"CS231N_LIT_NUM_THREADS": str(threads)})
    assert len(found) == 1 and word in found[0] and facts["threads"] == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or _usable_cores() < 2, reason="needs two cores, one of which can be taken away")
def test_fewer_cores_than_the_machine_has():
    one = min(os.sched_getaffinity(0))
    found, facts = advice("Of this machine's", preexec_fn=lambda: os.sched_setaffinity(0, {one}))
    assert facts["usable"] == facts["threads"] == 1 and found[0].startswith(f"Of this machine's {os.cpu_count()} cores, this process may use 1:")


FACTS = dict(machine="Linux x86_64, Some Processor", cores=4, usable=4, threads=4, quota=None, compiled=True, stale=[], asked={}, compiler="gcc 12", numpy="2", blas="openblas",
             cifar10=None, ratio=.9, gain=3.5)


def from_facts(**changed):
    able = [isa for isa, (ending, _) in cli.ISAS.items() if ending in choices()]
    return list(cli._advice(FACTS | {"isa": able[0], "isas": able} | changed))


def test_what_cannot_be_brought_about_here():
    assert from_facts() == []
    assert "translated" in from_facts(machine="Darwin x86_64, VirtualApple @ 2.50GHz")[0]
    assert from_facts(machine="Windows AMD64, Some Processor", isas=[], isa="numpy", compiled=False)[0].endswith("Visual Studio, with its C++ Clang tools.")
    assert "Please report it" in from_facts(ratio=.3)[0] and from_facts(ratio=.3, blas="accelerate") == []
    assert "other programs" in from_facts(gain=1.05)[0] and from_facts(gain=1.05, threads=1, usable=1, cores=1) == []


def test_the_form_for_people_and_the_speed():
    start = time.perf_counter()
    said = ask(environment={"CS231N_LIT_ISA": "numpy"})
    taken = time.perf_counter() - start
    assert [line.split()[0] for line in said.splitlines()[:11]] == "cs231n_lit python machine cores numpy compiled isa threads cifar10 speed advice".split()
    assert "compiled     no: the layers run on NumPy" in said
    python = subprocess.run([sys.executable, "-c", "import time; t = time.perf_counter(); import numpy; print(time.perf_counter() - t)"], capture_output=True, text=True, check=True)
    assert taken < 30 * max(float(python.stdout), .1)  # measured: 1.4 s, with .14 s for importing NumPy


def test_threads_are_as_before():
    before = fast_layers.get_num_threads()
    cli._speed()
    assert fast_layers.get_num_threads() == before


@pytest.mark.parametrize("command", ["train", "status", "--help"])
def test_a_command_imports_what_it_needs(command):
    code = f"import sys; from cs231n_lit.cli import _parser; _parser({command!r}); print('cs231n_lit.sweep' in sys.modules, 'cs231n_lit.exercises' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == 2 * [str(command == "--help")]
