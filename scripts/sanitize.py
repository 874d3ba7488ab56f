"""Runs the compiled kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the random layers of `make fuzz`, then planted errors.

    python scripts/sanitize.py                                 2,000 layers for each instruction set of this processor
    python scripts/sanitize.py --isa v3 --seed 17 --layers 500

The kernels are built into build/sanitize, with GCC. Every work space and every result is full of NaN and lies in memory that nobody may touch, so that a
step past its end, or a number read before it was written, does not go unnoticed. Where the processor has AVX2 and no AVX-512, the kernels for
vectors of 64 bytes are built for AVX2 and run as well.
"""
import os
import subprocess
import sys
import sysconfig
import time

import fuzz

FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1 -O1"
PLANTED = {"heap-buffer-overflow": ("write", "read", "write small"), "misaligned address": ("unaligned",)}


def sanitizer():
    "The path of the sanitizer's library."
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC")
    library = subprocess.run([*compiler.split(), "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(library): sys.exit(f"{compiler} has no libasan.so: on Debian and Ubuntu, install gcc")
    return library


def environment():
    "What a process needs whose kernels were built for the sanitizer."
    return {"LD_PRELOAD": sanitizer(), "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1", "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=99",
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:exitcode=99"}


def unnoticed(error, message, isa, env):
    "Does a planted error go unnoticed? Then what was said is shown."
    done = subprocess.run([sys.executable, __file__, "--plant", error, isa], env=env, capture_output=True, text=True)
    if done.returncode and message in done.stderr and "kernels" in done.stderr: return False
    print(f"{isa}: the planted error {error!r} was not noticed\n{done.stderr[-3000:]}")
    return True


def main(args):
    start = time.time()
    sys.path[:0] = [str(fuzz.ROOT)]
    from cs231n_lit.kernels.compiled import choices
    wide = "v3" in choices() and "v4" not in choices()
    built = fuzz.build("sanitize", FLAGS + " -march=x86-64-v3" * wide)
    ready = time.time()
    env = environment()
    findings = 0
    for isa in args.isa or [*choices(), *["v4"] * wide]:
        findings += fuzz.outside(args, built, [isa], env=env)
        for message, errors in PLANTED.items(): findings += sum(unnoticed(error, message, isa, {**os.environ, **env, "PYTHONPATH": str(built)}) for error in errors)
    print(f"{findings} findings; {ready - start:.0f} s to build, {time.time() - ready:.0f} s to run")
    sys.exit(findings > 0)


def plant(error, isa):
    "Lets a kernel do what it must not do."
    import numpy as np
    from cs231n_lit.kernels.compiled import load
    n = 3 if error == "write small" else 5000
    w, dw = np.ones(n), np.ones(n + 1)
    if error == "read": w, dw = dw, w
    if error == "unaligned": w = np.frombuffer(bytearray(8 * n + 9), offset=1)
    load([isa])["layers"].sgd_step(w, dw, np.ones(1), 0, n + 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plant"]: plant(*sys.argv[2:])
    else:
        parser = fuzz.parser()
        parser.set_defaults(layers=2000, seconds=10**6, seed=0)
        main(parser.parse_args())
