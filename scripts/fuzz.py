"""Random layers on the compiled kernels for as long as one likes, compared with float64 NumPy; the smallest layer that goes wrong is printed.

    python scripts/fuzz.py                       10 minutes, on each instruction set of this processor in turn
    python scripts/fuzz.py --seconds 60 --kinds conv pool --isa v3
    python scripts/fuzz.py --wide                vectors of 64 bytes, too, on a processor that has none: the kernels for AVX-512 are built for AVX2 in build/wide
    python scripts/fuzz.py --isa v3 --case "Conv(x=(1, 2, 4, 4), w=(3, 2, 3, 3), stride=1, pad=1)"   one layer again

The layers, their numbers and what is compared are those of tests/kernel_cases.py: all work space and results are full of NaN and lie between guard
zones. A crash or a call that hangs is a finding, too. The exit status is 1 if there is one. The same seed draws the same layers.
"""
import argparse
import faulthandler
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUND = {"conv": 500, "pool": 80, "norm": 80, "affine": 80, "relu": 20, "step": 20, "sandwich": 40}  # layers of each kind in a round


def build(folder, flags, targets="v1 v3 v4"):
    "The package with kernels compiled with more flags, in a folder of build/; its path."
    built = ROOT / "build" / folder
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", built, "--build-temp", built / "temp"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "CS231N_LIT_CFLAGS": flags, "CS231N_LIT_TARGETS": targets})
    if done.returncode or "left out" in done.stderr: sys.exit(f"The kernels could not be built:\n{done.stdout}{done.stderr}")
    return built


def apart(case, kernels):
    "Check a layer in a forked process, so that a crash is an error like others."
    if not (pid := os.fork()):
        try: case.check(kernels)
        except BaseException: os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not status, f"the process ended with {status}"


class Search:
    "Layers one after another, on the kernels of some instruction sets."
    def __init__(self, args):
        import kernel_cases
        self.cases, self.args, self.count, self.last = kernel_cases, args, Counter(), os.open(args.last, os.O_RDWR | os.O_CREAT)
        self.kernels = [kernel_cases.Kernels(ending) for ending in args.isa]

    def check(self, case, kernels):
        "One layer, written down before."
        text = f"--isa {kernels} --case \"{case}\"".encode()
        os.pwrite(self.last, text, 0)
        os.ftruncate(self.last, len(text))
        self.count[kernels.name, type(case).__name__.lower()] += 1
        faulthandler.dump_traceback_later(600, exit=True)
        (apart if self.args.apart else self.cases.Case.check)(case, kernels)
        faulthandler.cancel_dump_traceback_later()

    def round(self, number, kernels, kind, layers):
        "Layers of one kind; the smallest that goes wrong is raised."
        from hypothesis import HealthCheck, Phase, given, seed, settings
        settings_ = settings(max_examples=layers, deadline=None, database=None, report_multiple_bugs=False, phases=[Phase.generate, Phase.shrink],
                             suppress_health_check=list(HealthCheck), print_blob=False)
        seed(number)(settings_(given(self.cases.layers(kernels)[kind])(lambda case: self.check(case, kernels))))()

    def run(self):
        "Rounds until time or layers are out; what was found."
        args, start, number = self.args, time.time(), self.args.seed
        while True:
            for kernels in self.kernels:
                for kind in args.kinds:
                    try: self.round(number, kernels, kind, ROUND[kind])
                    except KeyboardInterrupt: return self.report(number)
                    except Exception as e:
                        return print(f"seed {number}: {str(e).splitlines()[0]}\nagain: python scripts/fuzz.py {os.pread(self.last, 10000, 0).decode()}", flush=True) or 1
                    if self.args.layers and self.count.total() >= self.args.layers or time.time() - start > self.args.seconds: return self.report(number)
            number += 1
            if not (number - args.seed) % 10: self.report(number)

    def report(self, number):
        for kernels in self.kernels:
            of_these = {kind: n for (name, kind), n in self.count.items() if name == kernels.name}
            print(f"{kernels}: {sum(of_these.values()):,} layers, seeds {self.args.seed} to {number}, none wrong ({', '.join(f'{k} {n:,}' for k, n in of_these.items())})")


def inside(args):
    "What runs in a process of its own."
    sys.path[:0] = [str(ROOT / "tests")]
    faulthandler.enable()
    import cs231n_lit
    assert cs231n_lit.__file__.startswith(os.environ["PYTHONPATH"]), "another package than asked for"
    if not args.case: return Search(args).run()
    import kernel_cases
    for ending in args.isa: eval(args.case, vars(kernel_cases)).check(kernel_cases.Kernels(ending))


def outside(args, package, isa, share=1, env=None, more=()):
    "This script in a process of its own, on the kernels of one package; 1 if something was found."
    last = ROOT / "build" / "last_layer.txt"
    command = [sys.executable, __file__, "--inside", "--last", str(last), "--seed", str(args.seed), "--isa", *isa, "--kinds", *args.kinds,
               "--seconds", str(args.seconds * share), "--layers", str(int(args.layers * share)), *(["--case", args.case] if args.case else []), *more]
    done = subprocess.run(command, env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(package), **(env or {})})
    if done.returncode in (0, 1): return done.returncode
    print(f"a crash ({done.returncode}): python scripts/fuzz.py {last.read_text()}", flush=True)
    if not more and not args.case: outside(args, package, isa, share, env, ("--apart",))  # once more, for a smaller one
    return 1


def main(args):
    sys.path[:0] = [str(ROOT)]
    from cs231n_lit.kernels.compiled import choices
    runs = [(ROOT, [isa for isa in args.isa or choices() if isa in choices()])]
    if args.wide or "v4" in args.isa and "v4" not in choices(): runs.append((build("wide", "-march=x86-64-v3", "v4"), ["v4"]))
    runs = [(package, isa) for package, isa in runs if isa]
    sys.exit(max([outside(args, package, isa, len(isa) / sum(len(i) for _, i in runs)) for package, isa in runs]))


def parser():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--seconds", type=float, default=600, help="how long (600)")
    p.add_argument("--layers", type=int, default=0, help="or how many")
    p.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first round; one drawn at random unless given")
    p.add_argument("--kinds", nargs="+", default=list(ROUND), choices=list(ROUND), help="kinds of layers")
    p.add_argument("--isa", nargs="+", default=[], help="endings of the compiled modules: v1 v3 v4")
    p.add_argument("--wide", action="store_true", help="vectors of 64 bytes, too")
    p.add_argument("--case", help="this layer only")
    for name in "--inside", "--apart": p.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--last", help=argparse.SUPPRESS)
    return p


if __name__ == "__main__":
    args = parser().parse_args()
    sys.exit(inside(args) if args.inside else main(args))
