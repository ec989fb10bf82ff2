"""The extension module; everything else is in pyproject.toml."""

import glob
import os

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "pyepoll._epoll",
            sources=sorted(glob.glob("csrc/*.c")),
            depends=sorted(glob.glob("csrc/*.h")),
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
