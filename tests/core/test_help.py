"""help() documents the operators of a class as well as its methods."""

import ctypes
import pydoc
import types
from typing import Any

import pytest

import pyepoll
from pyepoll import _epoll

OPERATORS = ["__iter__", "__len__", "__contains__", "__bool__"]


def shown(thing: object) -> str:
    return pydoc.render_doc(thing, renderer=pydoc.plaintext)  # type: ignore[attr-defined]


def entry(name: str, text: str) -> str:
    """The lines of help() of a class for a method, up to the next empty one."""
    _, _, rest = text.partition(f"\n |  {name}(")
    return rest.partition("\n |\n")[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("__iter__", "for data, events in ep"),
        ("__len__", "how many fds are registered"),
        ("__contains__", "an int or an object with fileno(), is registered"),
        ("__bool__", "Return True, as select.epoll does"),
    ],
)
def test_operators_of_epoll_are_explained(name: str, text: str) -> None:
    assert text in entry(name, shown(pyepoll.Epoll))
    assert text in str(vars(pyepoll.Epoll)[name].__doc__)


def test_iteration_is_at_the_top_of_help() -> None:
    text = shown(pyepoll.Epoll)
    assert "for data, events in ep:" in text[: text.index("Method resolution order")]


@pytest.mark.parametrize(
    "thing",
    [
        pyepoll.Epoll,
        pyepoll.EpollSelector,
        pyepoll.Registrations,
        pyepoll.Waker,
        pyepoll.Timer,
        pyepoll.Signals,
        pyepoll.Child,
    ],
)
def test_no_slot_has_the_generic_docstring(thing: type) -> None:
    """CPython's for a slot begins with Implement or Return and names no more than the operator."""
    generic = {
        list.__iter__.__doc__,
        list.__len__.__doc__,
        list.__contains__.__doc__,
        int.__bool__.__doc__,
        tuple.__getitem__.__doc__,
        None,
    }
    for name in [*OPERATORS, "__getitem__", "__enter__", "__exit__"]:
        for base in thing.__mro__:
            if name in vars(base):
                if base.__module__.startswith("pyepoll") and base is not _epoll.Epoll:
                    assert vars(base)[name].__doc__ not in generic, f"{base.__name__}.{name}"
                break


def test_map_of_a_selector_is_explained() -> None:
    with pyepoll.EpollSelector() as selector:
        text = shown(type(selector.get_map()))
    for name in "__getitem__", "__iter__", "__len__":
        assert len(entry(name, text).splitlines()) > 1, name


def slot_iter(kind: type) -> int | None:
    """tp_iter: the 25th word of a type after the header of an object of variable size."""
    head = object.__basicsize__ + ctypes.sizeof(ctypes.c_ssize_t)
    return ctypes.c_void_p.from_address(id(kind) + head + 24 * ctypes.sizeof(ctypes.c_void_p)).value


def test_docstrings_leave_the_slots_in_c() -> None:
    """Not a method that the interpreter would have to look up at each loop, also of a subclass."""

    class Mine(pyepoll.Epoll[Any]):
        pass

    class Other(pyepoll.Epoll[Any]):
        def __iter__(self) -> Any:
            return super().__iter__()

    for name in OPERATORS:
        assert isinstance(vars(pyepoll.Epoll)[name], types.WrapperDescriptorType)
    assert slot_iter(pyepoll.Epoll) == slot_iter(Mine) == slot_iter(_epoll.Epoll)
    assert slot_iter(Other) != slot_iter(_epoll.Epoll), "or the field is not tp_iter"
