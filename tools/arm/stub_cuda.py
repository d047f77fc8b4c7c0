#!/usr/bin/env python3
"""Make a torch wheel that was built for CUDA importable where there is no CUDA, for work on the CPU only.

    stub_cuda.py TORCH_PACKAGE SYSTEM_ROOT

Removes torch's CUDA libraries and puts libraries in place of them, and of NVIDIA's, that define every symbol
the remaining ones ask for. Functions return 0; nothing on the CPU calls them after loading. Needs
aarch64-linux-gnu-gcc.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = "aarch64-linux-gnu-"
CUDA = (
    "libtorch_cuda.so", "libc10_cuda.so", "libtorch_cuda_linalg.so", "libtorch_nvshmem.so",
    "libcaffe2_nvrtc.so",
)  # fmt: skip
# Called while torch is loaded: functions that return a reference get scratch memory, and constructors leave
# an object whose virtual functions are stubs.
RETURNS_REFERENCE = ("get_gil_checker", "getDefaultCUDAGenerator")
CONSTRUCTOR = "7OptionsC"


@dataclass
class Symbols:
    needed: set[str] = field(default_factory=set)
    defined: dict[str, tuple[str, int]] = field(default_factory=dict)  # name -> (type, size)


def read_symbols(library: Path) -> Symbols:
    symbols = Symbols()
    for line in _readelf("--dyn-syms", library).splitlines():
        fields = line.split()
        if len(fields) < 8 or not fields[0].rstrip(":").isdigit():
            continue
        size, kind, binding, section = fields[2], fields[3], fields[4], fields[6]
        name = fields[7].split("@")[0]
        if section != "UND":
            symbols.defined[name] = (kind, int(size, 0))
        elif binding != "WEAK":
            symbols.needed.add(name)
    return symbols


def needed_libraries(library: Path) -> set[str]:
    return set(re.findall(r"NEEDED\).*\[(.*?)\]", _readelf("-d", library)))


def _readelf(option: str, library: Path) -> str:
    return subprocess.run(
        [TOOLS + "readelf", "-W", option, str(library)], text=True, capture_output=True, check=True
    ).stdout


def assembly(missing: list[str], cuda: dict[str, tuple[str, int]]) -> str:
    """A library that defines `missing`; `cuda` tells which of them are data, and how large."""
    code = [
        "_stub_zero: mov x0, #0", "ret",
        "_stub_reference: adrp x0, _scratch", "add x0, x0, :lo12:_scratch", "ret",
        "_stub_constructor: adrp x1, _vtable+16", "add x1, x1, :lo12:(_vtable+16)", "str x1, [x0]", "ret",
    ]  # fmt: skip
    data = [
        ".balign 16", "_scratch: .zero 4096",
        "_vtable: .quad 0, 0", ".rept 32", ".quad _stub_zero", ".endr",
    ]  # fmt: skip
    for number, name in enumerate(missing):
        kind, size = cuda.get(name, ("FUNC", 0))
        if name.startswith("_ZTI"):  # type information that exceptions and casts look at
            data += [
                f".globl {name}", f".type {name}, %object", ".balign 8",
                f"{name}: .quad _ZTVN10__cxxabiv117__class_type_infoE+16", f".quad .Lname{number}",
                f'.Lname{number}: .asciz "{name[4:]}"',
            ]  # fmt: skip
        elif kind in ("OBJECT", "TLS") or name.startswith(("_ZTV", "_ZGV")):
            data += [
                f".globl {name}",
                f".type {name}, %object",
                ".balign 16",
                f"{name}: .zero {max(size, 64)}",
            ]
        else:
            stub = "_stub_zero"
            if any(part in name for part in RETURNS_REFERENCE):
                stub = "_stub_reference"
            elif CONSTRUCTOR in name:
                stub = "_stub_constructor"
            code += [f".globl {name}", f".type {name}, %function", f".set {name}, {stub}"]
    return "\n".join([".text", *code, ".data", *data, '.section .note.GNU-stack,"",%progbits', ""])


def link(source: str, target: Path, options: list[str]) -> None:
    subprocess.run(
        [TOOLS + "gcc", "-shared", "-nostartfiles", f"-Wl,-soname,{target.name}", "-o", str(target),
         "-x", "assembler", "-", *options],
        input=source, text=True, check=True,
    )  # fmt: skip


def main(package: Path, root: Path) -> None:
    folder = package / "lib"
    cuda: dict[str, tuple[str, int]] = {}
    for name in CUDA:
        if (folder / name).exists():
            cuda |= read_symbols(folder / name).defined
    libraries = [path for path in folder.glob("*.so*") if path.is_file() and path.name not in CUDA]
    libraries += package.glob("_C*.so")
    needed, defined, wanted = set(), set(), set()
    for library in libraries:
        symbols = read_symbols(library)
        needed |= symbols.needed
        defined |= symbols.defined.keys()
        wanted |= needed_libraries(library)
    absent = set()
    for name in wanted - {path.name for path in libraries}:
        system = next((path for path in root.rglob(name) if path.is_file()), None)
        if system is None:
            absent.add(name)
        else:
            defined |= read_symbols(system).defined.keys()
    missing = sorted(name for name in needed - defined if not name.startswith(("Py", "_Py")))
    for name in CUDA:
        (folder / name).unlink(missing_ok=True)
    empty = '.section .note.GNU-stack,"",%progbits\n'
    for name in sorted(absent | {"libtorch_cuda.so", "libc10_cuda.so"}):
        if name == "libtorch_cuda.so":
            link(assembly(missing, cuda), folder / name, ["-lstdc++"])
        else:
            link(empty, folder / name, ["-nostdlib"])
    print(f"CUDA: {len(missing)} symbols stubbed, in place of {', '.join(sorted(absent)) or 'no library'}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
