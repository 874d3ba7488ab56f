"""The tile for 64-bit ARM, compiled by a cross compiler: nothing is run, but its inner loop is there to be read. `make test-arm` runs it, under emulation."""
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import arm

needs = pytest.mark.skipif(not shutil.which(arm.COMPILER) or not shutil.which("aarch64-linux-gnu-objdump"), reason="no compiler for ARM (package gcc-aarch64-linux-gnu)")


@needs
def test_inner_loop_keeps_its_sums_in_registers(tmp_path):
    loops = arm.inner_loops(arm.tile_object(tmp_path))
    widest = [next(loop for loop in loops if loop["numbers"] == numbers) for numbers in (4, 2)]
    for loop in widest:
        assert loop["multiply-adds"] == 24, "six rows by four registers"
        assert loop["stack"] == 0, "sums are kept in memory"
        assert loop["loads"] <= 9 and loop["multiply-adds"] >= .64 * loop["instructions"]


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda tool: None if "qemu" in tool else "/usr/bin/" + tool)
    assert arm.missing() == "make test-arm needs qemu-aarch64 (package qemu-user): on Debian and Ubuntu, apt install qemu-user"
