"""The extension module; everything else is in pyproject.toml."""

import glob
import os
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

# Before the compiler has its say. pip itself refuses some of these, but only after the build.
if sys.platform != "linux" or sys.implementation.name != "cpython" or sys.version_info < (3, 11):
    sys.exit(
        f"pyepoll needs Linux and CPython 3.11 or later; this is {platform.python_implementation()} "
        f"{platform.python_version()} on {sys.platform}"
    )

OPTIMIZATIONS = "-flto=auto", "-fno-plt"
"""They make calls between the C files, and into Python, cheaper."""


class OptimizedBuild(build_ext):  # type: ignore[misc]
    """The command ``build_ext``, with OPTIMIZATIONS where the compiler and the linker know them."""

    def build_extensions(self) -> None:
        if self.can_optimize():
            for extension in self.extensions:
                # In front of the developer's flags, which may switch them off.
                extension.extra_compile_args[:0] = OPTIMIZATIONS
                extension.extra_link_args[:0] = OPTIMIZATIONS
        super().build_extensions()

    def can_optimize(self) -> bool:
        if "-fno-lto" in self.compiler.compiler_so:  # In CFLAGS, which come first.
            return False
        with TemporaryDirectory() as directory:
            source = Path(directory, "probe.c")
            source.write_text("int probe(void) { return 0; }\n")
            flags = list(OPTIMIZATIONS)
            try:
                objects = self.compiler.compile([str(source)], output_dir=directory, extra_postargs=flags)
                self.compiler.link_shared_object(
                    objects, str(source.with_suffix(".so")), extra_postargs=flags
                )
            except (CompileError, LinkError):
                return False
        return True


setup(
    cmdclass={"build_ext": OptimizedBuild},
    ext_modules=[
        Extension(
            "pyepoll._epoll",
            sources=sorted(glob.glob("csrc/**/*.c", recursive=True)),
            depends=sorted(glob.glob("csrc/**/*.h", recursive=True)),
            include_dirs=["csrc"],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=[
                "-std=c11",
                "-fvisibility=hidden",
                # For developers: PYEPOLL_CFLAGS="-Wall -Wextra -Werror -fsanitize=address,undefined".
                *os.environ.get("PYEPOLL_CFLAGS", "").split(),
            ],
            extra_link_args=os.environ.get("PYEPOLL_LDFLAGS", "").split(),
        )
    ],
)
