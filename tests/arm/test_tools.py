"""tools/arm without emulation: spilled registers are found, runs on one cache wait, cycles are estimated."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools/arm"
COMPILER = "aarch64-linux-gnu-g++"
SUMS = """
#include <arm_neon.h>
void sums(float* p, const float* w, int n) {{
  float32x4_t a[{count}];
#pragma GCC unroll 64
  for (int i = 0; i < {count}; ++i) a[i] = vld1q_f32(p + 4 * i);
  for (int k = 0; k < n; ++k, w += 4) {{
    const float32x4_t b = vld1q_f32(w);
#pragma GCC unroll 64
    for (int i = 0; i < {count}; ++i) a[i] = vfmaq_f32(a[i], b, b);
    {each}
  }}
#pragma GCC unroll 64
  for (int i = 0; i < {count}; ++i) vst1q_f32(p + 4 * i, a[i]);
}}
"""

needs_tools = pytest.mark.skipif(not TOOLS.is_dir(), reason="tools/arm is not beside the tests")
needs_compiler = pytest.mark.skipif(
    not shutil.which(COMPILER), reason=f"{COMPILER} is not installed (Debian: g++-aarch64-linux-gnu)"
)
pytestmark = needs_tools


def check(*paths, known=""):
    """(exit status, all that check_spills.py says)"""
    list_of_known = paths[0].parent / "known.txt"
    list_of_known.write_text(known)
    command = [sys.executable, TOOLS / "check_spills.py", "--known", list_of_known, *paths]
    result = subprocess.run(command, text=True, capture_output=True)
    return result.returncode, result.stdout + result.stderr


def compiled(folder, source, *flags):
    (folder / "neon.cc").write_text(source)
    flags = flags or ("-fverbose-asm",)
    command = [COMPILER, "-O3", "-save-temps=obj", *flags, "-c", "neon.cc", "-o", "neon.cc.o"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "neon.cc.s"


@needs_compiler
def test_sums_that_fit_the_registers(tmp_path):
    status, report = check(compiled(tmp_path, SUMS.format(count=24, each="")))
    assert status == 0, report
    assert "24 fmla" in report and " 0 loops spill" in report


@needs_compiler
def test_sums_that_do_not(tmp_path):
    status, report = check(compiled(tmp_path, SUMS.format(count=40, each="")))
    assert status == 1
    assert "sums(" in report and "inner loop" in report and "%sfp" in report


@needs_compiler
def test_an_array_of_registers_in_memory_is_a_spill(tmp_path):
    each = "a[n - k & 7] = b;"  # an element that only the running program knows
    status, report = check(compiled(tmp_path, SUMS.format(count=24, each=each)))
    assert status == 1, report


@needs_compiler
def test_what_is_saved_around_a_rare_call_is_none(tmp_path):
    each = 'if (k == 77) __builtin_printf("rare");'
    status, report = check(compiled(tmp_path, SUMS.format(count=24, each=each)))
    assert status == 0, report


@needs_compiler
def test_known_spills_are_tolerated_up_to_their_number(tmp_path):
    file = compiled(tmp_path, SUMS.format(count=40, each=""))
    assert check(file, known="neon.cc | ^sums | 1000 | a reason")[0] == 0
    assert check(file, known="neon.cc | ^sums | 1 | a reason")[0] == 1
    assert check(file, known="other | ^sums | 1000 | a reason")[0] == 1


@needs_compiler
def test_no_family_of_a_build_drops_out(tmp_path):
    for family, source in (("sum", SUMS.format(count=8, each="")), ("empty", "int f(int x) { return x; }")):
        (tmp_path / family).mkdir()
        compiled(tmp_path / family, source)
    status, report = check(tmp_path)
    assert status == 1 and "empty: no loop with vector instructions" in report
    (tmp_path / "empty/neon.cc.s").unlink()
    status, report = check(tmp_path)
    assert status == 1 and "has no assembly beside it" in report


@needs_compiler
def test_assembly_without_comments_is_refused(tmp_path):
    status, report = check(compiled(tmp_path, SUMS.format(count=40, each=""), "-g0"))
    assert status == 1 and "-fverbose-asm" in report


@needs_compiler
def test_the_projects_own_list_is_readable(tmp_path):
    file = compiled(tmp_path, SUMS.format(count=24, each=""))
    assert subprocess.run([sys.executable, TOOLS / "check_spills.py", file]).returncode == 0


def locked(cache, *mode):
    """A process that takes the lock of a cache, says so, and keeps it until its input ends."""
    script = f". {TOOLS}/paths.sh; lock {' '.join(mode)}; echo held; read -r line"
    pipe = subprocess.PIPE
    environment = os.environ | {"SEMISPARSE_ARM_CACHE": str(cache)}
    environment.pop("SEMISPARSE_ARM_LOCKED", None)
    return subprocess.Popen(
        ["bash", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
    )


@pytest.mark.skipif(not shutil.which("flock"), reason="flock is not installed (Debian: util-linux)")
def test_a_second_run_on_a_cache_waits(tmp_path):
    first = locked(tmp_path / "a")
    assert first.stdout.readline() == "held\n"
    second, elsewhere = locked(tmp_path / "a", "shared"), locked(tmp_path / "b")
    assert elsewhere.stdout.readline() == "held\n"
    assert "waiting for another run" in second.stderr.readline()
    first.communicate("\n")
    assert second.stdout.readline() == "held\n"
    third = locked(tmp_path / "a", "shared")
    assert third.stdout.readline() == "held\n"  # two that change nothing run side by side
    for process in (second, third, elsewhere):
        process.communicate("\n")


@pytest.mark.skipif(not shutil.which("llvm-mca"), reason="llvm-mca is not installed (Debian: llvm)")
def test_cycles_and_efficiency(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS / "count"))
    from cycles import Estimator

    fmla = [f"{0x4F991000 | register:08x}" for register in range(24)]  # fmla vN.4s, v0.4s, v25.s[0]
    wait = ["4f991000"] * 24  # each waits for the one before it
    loop, slow = [(1000, fmla)], [(1000, wait)]
    estimator = Estimator("cortex-a72")
    best, worst = estimator.estimate(loop), estimator.estimate(slow)
    assert best.products == worst.products == 24 * 4 * 1000
    assert best.hot == best.loops == pytest.approx(1, abs=0.02)
    assert worst.hot < 0.5
    assert worst.cycles > 2 * best.cycles
    both = estimator.estimate(loop + slow)
    assert both.cycles == pytest.approx(best.cycles + worst.cycles, rel=1e-6)
    assert [hot.runs for hot in estimator.hottest(loop + [(1, ["d503201f"])], 5)] == [1000]


def test_pieces_of_a_block_are_joined(monkeypatch):
    """QEMU cuts long blocks; who jumps into the middle keeps runs of his own."""
    monkeypatch.syspath_prepend(str(TOOLS / "count"))
    from blocks import joined

    fmla, add, jump, trap = "4f991000", "8b020020", "54fffde1", "d4000001"  # fmla, add, b.ne, svc
    pieces = [
        (40, 0x100C, [add, jump]),  # 30 times behind the loop's first piece, 10 times jumped to
        (30, 0x1000, [fmla, fmla, fmla]),
        (2, 0x0FF8, [add, jump]),  # what comes before ends with a branch
        (5, 0x2000, [trap]),  # a system call goes on behind, here four times of five
        (4, 0x2004, [add, jump]),
        (3, 0x3000, [fmla]),  # nothing follows
    ]
    expected = [
        (2, [add, jump]),
        (30, [fmla, fmla, fmla, add, jump]),
        (10, [add, jump]),
        (1, [trap]),
        (4, [trap, add, jump]),
        (3, [fmla]),
    ]
    assert joined(pieces) == expected
    assert sum(n * len(w) for n, w in expected) == sum(n * len(w) for n, _, w in pieces)
