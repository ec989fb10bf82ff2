"""The extension module; everything else is in pyproject.toml."""

import glob
import os
import platform
import sys

from setuptools import Extension, setup

# Before the compiler has its say. pip itself refuses some of these, but only after the build.
if sys.platform != "linux" or sys.implementation.name != "cpython" or sys.version_info < (3, 11):
    sys.exit(
        f"pyepoll needs Linux and CPython 3.11 or later; this is {platform.python_implementation()} "
        f"{platform.python_version()} on {sys.platform}"
    )


setup(
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
    ]
)
