"""Builds the two native libraries of semisparse. Metadata is in pyproject.toml.

- ``semisparse/libsemisparse_torch.so``: operators for the PyTorch dispatcher, free of Python.
- ``semisparse/_core.*.so``: pybind11 module, numpy in and numpy out, free of torch.

Both share the objects of ``cpp/core``, whose files and per-file instruction sets are listed in
``cpp/core/sources.txt``. ninja compiles, so a second build compiles only what has changed.

Environment:
    CXX, CXXFLAGS, LDFLAGS     compiler and additional flags (ccache is used where it is installed).
    MAX_JOBS                   compilations at the same time; default 2 (torch's headers take 1 GB each).
    SEMISPARSE_ARCH            target architecture, when cross-compiling: x86_64 or aarch64.
    SEMISPARSE_TORCH_DIR       directory of the torch package to build against; default: the installed one.
    SEMISPARSE_WITHOUT_TORCH=1 only the numpy runtime, for boards without torch.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
OPERATORS, RUNTIME = "semisparse.libsemisparse_torch", "semisparse._core"
WITHOUT_TORCH = os.environ.get("SEMISPARSE_WITHOUT_TORCH", "0") == "1"
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def target_architecture() -> str:
    name = os.environ.get("SEMISPARSE_ARCH", platform.machine()).lower()
    return ARCHITECTURES.get(name, name)


def core_sources() -> list[tuple[Path, list[str]]]:
    """(file, additional flags) of every core source that belongs to the target architecture."""
    listing = ROOT / "cpp/core/sources.txt"
    sources = []
    for line in listing.read_text().splitlines():
        fields = [field.strip() for field in line.split("#")[0].split("|")]
        if not fields[0]:
            continue
        if len(fields) not in (1, 3):
            raise SystemExit(
                f"{listing.relative_to(ROOT)}: expected 'path' or 'path | arch | flags', found {line!r}"
            )
        if len(fields) == 1 or fields[1] == target_architecture():
            sources.append((listing.parent / fields[0], shlex.split(fields[2]) if len(fields) == 3 else []))
    return sources


def torch_directory() -> Path:
    """The torch package to build against, found without importing it (that takes seconds).

    Under build isolation the installed packages are hidden from this process, but not their directory.
    """
    if given := os.environ.get("SEMISPARSE_TORCH_DIR"):
        candidates = [Path(given)]
    else:
        spec = importlib.util.find_spec("torch")
        visible = [Path(spec.origin).parent] if spec and spec.origin else []
        installed = {sysconfig.get_path("platlib"), *site.getsitepackages(), site.getusersitepackages()}
        candidates = visible + [Path(directory) / "torch" for directory in sorted(installed)]
    for directory in candidates:
        if (directory / "include/torch/library.h").is_file():
            return directory
    raise SystemExit(
        "semisparse builds its operators against the torch it will run with, but no torch was found in "
        + ", ".join(map(str, candidates))
        + ".\nInstall one first, for example\n"
        "    pip install torch --index-url https://download.pytorch.org/whl/cpu\n"
        "or set SEMISPARSE_TORCH_DIR to its package directory, or set SEMISPARSE_WITHOUT_TORCH=1 to build "
        "only the numpy runtime."
    )


def torch_version(directory: Path) -> str:
    version = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", (directory / "version.py").read_text()).group(1)
    if tuple(map(int, version.split(".")[:2])) < (2, 9):
        raise SystemExit(f"semisparse needs torch 2.9 or newer, found {version}: pip install --upgrade torch")
    return version


class NinjaFile:
    """Writes build.ninja: objects with their header dependencies, and shared libraries."""

    def __init__(self, directory: Path):
        self.directory = directory
        compiler = os.environ.get("CXX", "c++")
        launcher = "ccache " if shutil.which("ccache") and "ccache" not in compiler else ""
        self.lines = [
            "ninja_required_version = 1.5",
            "rule compile",
            f"  command = {launcher}{compiler} -MMD -MF $out.d $flags -c $in -o $out",
            "  depfile = $out.d",
            "  deps = gcc",
            "  description = compile $in",
            "rule link",
            f"  command = {compiler} -shared $in -o $out $flags",
            "  description = link $out",
        ]

    @staticmethod
    def path(path: Path | str) -> str:
        return re.sub(r"([ :$])", r"$\1", str(path))

    @staticmethod
    def flags(flags: list[str]) -> str:
        return " ".join(shlex.quote(flag) for flag in flags).replace("$", "$$")

    def compile(self, source: Path, flags: list[str]) -> Path:
        return self._object(
            source, self.directory / source.relative_to(ROOT / "cpp").with_suffix(".o"), flags
        )

    def _object(self, source: Path, target: Path, flags: list[str]) -> Path:
        self.lines += [
            f"build {self.path(target)}: compile {self.path(source)}",
            f"  flags = {self.flags(flags)}",
        ]
        return target

    def compile_together(self, sources: list[Path], flags: list[str]) -> Path:
        """One translation unit of several sources: where the headers of others (torch, pybind11) take most of
        the time, they are read once, and what they instantiate is made once."""
        unit = self.directory / f"{sources[0].parent.name}.cpp"
        text = "".join(f'#include "{source.relative_to(ROOT / "cpp")}"\n' for source in sources)
        if not unit.is_file() or unit.read_text() != text:  # its time says whether to compile
            unit.write_text(text)
        return self._object(unit, unit.with_suffix(".o"), flags)

    def link(self, target: Path, objects: list[Path], flags: list[str]) -> Path:
        inputs = " ".join(map(self.path, objects))
        self.lines += [f"build {self.path(target)}: link {inputs}", f"  flags = {self.flags(flags)}"]
        return target

    def run(self) -> None:
        ninja = shutil.which("ninja")
        if ninja is None:
            raise SystemExit("ninja is needed to build semisparse: pip install ninja")
        (self.directory / "build.ninja").write_text("\n".join(self.lines) + "\n")
        jobs = os.environ.get("MAX_JOBS", "2")
        if subprocess.run([ninja, "-C", str(self.directory), "-j", jobs]).returncode != 0:
            raise SystemExit(
                f"semisparse: compilation failed, see above; ninja -C {self.directory} repeats it"
            )


class BuildPython(build_py):
    def run(self) -> None:
        # setuptools keeps build/lib: what was renamed, or is not built this time, would be packed again.
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildNative(build_ext):
    def get_ext_filename(self, name: str) -> str:
        # The operator library is no Python module, so its name carries no Python version.
        if name.split(".")[-1] == OPERATORS.split(".")[-1]:
            return name.replace(".", os.sep) + ".so"
        return super().get_ext_filename(name)

    def build_extensions(self) -> None:
        torch = None if WITHOUT_TORCH else torch_directory()
        label = "no-torch" if torch is None else "torch-" + torch_version(torch)
        # Not setuptools' build_temp: pip makes that anew every time, and nothing would be incremental.
        directory = ROOT / "build" / f"{target_architecture()}-{sys.implementation.cache_tag}-{label}"
        directory.mkdir(parents=True, exist_ok=True)
        ninja = NinjaFile(directory)

        common = ["-std=c++17", "-O3", "-fPIC", "-Wall", "-Wextra", f"-I{ROOT / 'cpp'}"]
        common += [
            "-fvisibility=hidden",
            "-fvisibility-inlines-hidden",
            "-ffunction-sections",
            "-fdata-sections",
        ]
        # Error messages hold __FILE__: show paths inside the project, not those of the machine that built it.
        common += [f"-ffile-prefix-map={ROOT}/="]
        user_flags = shlex.split(os.environ.get("CXXFLAGS", ""))
        linking = ["-Wl,-O1", "-Wl,--gc-sections", "-Wl,--as-needed"]
        linking += shlex.split(os.environ.get("LDFLAGS", ""))

        # What takes longest stands first: ninja starts in this order.
        units = {} if torch is None else {OPERATORS: self._operators(ninja, common + user_flags, torch)}
        units[RUNTIME] = self._runtime(ninja, common + user_flags)
        core = [ninja.compile(source, common + flags + user_flags) for source, flags in core_sources()]
        built = {
            name: ninja.link(directory / f"{name.split('.')[-1]}.so", [unit, *core], linking + flags)
            for name, (unit, flags) in units.items()
        }
        ninja.run()
        for extension in self.extensions:
            target = Path(self.get_ext_fullpath(extension.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            # Through a temporary name: a process that has the old library loaded keeps it intact.
            temporary = target.with_suffix(".tmp")
            shutil.copy2(built[extension.name], temporary)
            os.replace(temporary, target)

    @staticmethod
    def _runtime(ninja: NinjaFile, common: list[str]) -> tuple[Path, list[str]]:
        """The object of the pybind11 module, and how it is linked."""
        try:
            import pybind11
        except ImportError:
            raise SystemExit("pybind11 is needed to build semisparse: pip install pybind11") from None
        include = Path(pybind11.get_include())
        flags = common + ["-isystem", str(include), "-isystem", sysconfig.get_path("include")]
        flags += [f"-ffile-prefix-map={include}/="]
        return ninja.compile_together(sorted((ROOT / "cpp/python").glob("*.cpp")), flags), ["-pthread"]

    @staticmethod
    def _operators(ninja: NinjaFile, common: list[str], torch: Path) -> tuple[Path, list[str]]:
        """The object of the operator library, and how it is linked."""
        include = torch / "include"
        flags = common + ["-isystem", str(include), "-isystem", str(include / "torch/csrc/api/include")]
        # Without -fopenmp at::parallel_for is silently serial. It is not given to the linker: torch brings
        # its own OpenMP runtime, and a second one would not know torch.set_num_threads.
        flags += ["-fopenmp", f"-ffile-prefix-map={include}/="]
        linking = [f"-L{torch / 'lib'}", "-Wl,--no-as-needed", "-lc10", "-ltorch_cpu", "-ltorch"]
        linking += ["-Wl,-rpath,$ORIGIN/../torch/lib", "-pthread"]
        return ninja.compile_together(sorted((ROOT / "cpp/torch").glob("*.cpp")), flags), linking


def packages() -> tuple[list[str], dict[str, str]]:
    """The package itself, and the top-level folders train/ and eval/ under its name."""
    names, folders = find_packages(include=["semisparse", "semisparse.*"]), {}
    for folder in ("train", "eval"):
        if (ROOT / folder / "__init__.py").is_file():
            folders[f"semisparse.{folder}"] = folder
            names += [f"semisparse.{folder}"] + [
                f"semisparse.{folder}.{name}" for name in find_packages(folder)
            ]
    return names, folders


def requirements() -> list[str]:
    """The operator library fits one minor version of torch, whose C++ interface is not stable: say so."""
    torch = [] if WITHOUT_TORCH else [f"torch=={'.'.join(torch_version(torch_directory()).split('.')[:2])}.*"]
    return ["numpy>=1.24", "safetensors>=0.4", *torch]


if __name__ == "__main__":
    names, folders = packages()
    setup(
        packages=names,
        package_dir={"semisparse": "semisparse", **folders},
        py_modules=["_semisparse_autoload"],
        package_data={"": ["recipes/*.yaml"]},
        install_requires=requirements(),
        ext_modules=[Extension(RUNTIME, [])] + ([] if WITHOUT_TORCH else [Extension(OPERATORS, [])]),
        cmdclass={"build_py": BuildPython, "build_ext": BuildNative},
    )
