"""What may an argument be? A wrong one is refused before anything is sent, with what it should be and what it is."""

from __future__ import annotations

import datetime as dt
import decimal
import numbers
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_PLAIN = (str, bytes, bool, int, float, decimal.Decimal, dt.date, dt.timedelta, list, tuple, dict)


def shown(value: object) -> str:
    """Tell a value as in `str 'noon'`; of what is large or foreign only the type."""
    if value is None:
        return "None"
    kind = type(value).__name__
    return f"{kind} {reprlib.repr(value)}" if isinstance(value, _PLAIN) else f"a {kind}"


def wrong(argument: str, expected: str, value: object) -> TypeError:
    """Refuse a value of another type than is taken."""
    return TypeError(f"{argument}: expected {expected}, found {shown(value)}")


def text(argument: str, value: Any, example: str) -> str:
    """Take a text, such as the name of a model."""
    if not isinstance(value, str):
        raise wrong(argument, example, value)
    if not value:
        raise ValueError(f"{argument}: expected {example}, found an empty text")
    return value


def optional_text(argument: str, value: Any, example: str) -> str | None:
    """Take a text or nothing."""
    return None if value is None else text(argument, value, example)


def texts(argument: str, value: Any, example: str) -> list[str]:
    """Take texts, one after the other."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
        raise wrong(argument, example, value)
    return [text(f"{argument}, item {at}", item, "a text") for at, item in enumerate(value)]


def version(value: Any) -> str | None:
    """Take the version of a model, which people write as a number too."""
    if value is None or (isinstance(value, numbers.Integral) and not isinstance(value, bool)):
        return None if value is None else str(value)
    return text("version", value, 'a version, such as "2"')


def flag(argument: str, value: Any) -> bool:
    """Take a yes or no."""
    if not isinstance(value, bool):
        raise wrong(argument, "True or False", value)
    return value


def count(argument: str, value: Any) -> int:
    """Take a number of things, at least one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise wrong(argument, "a whole number", value)
    if value < 1:
        raise ValueError(f"{argument} is {value}; it must be at least 1")
    return int(value)


def one_of(argument: str, value: Any, known: Sequence[str]) -> None:
    """Take one of a few texts."""
    if value not in known:
        listed = ", ".join(repr(one) for one in known[:-1])
        raise ValueError(f"{argument} is {value!r}; it is {listed} or {known[-1]!r}")


def seconds(argument: str, value: Any) -> float:
    """Take a length of time, in seconds, which is more than none."""
    length = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if isinstance(length, bool) or not isinstance(length, numbers.Real):
        raise wrong(argument, "a number of seconds or a timedelta", value)
    if not float(length) > 0:
        raise ValueError(f"{argument} is {length} seconds; it must be more than 0")
    return float(length)


def span(argument: str, value: Any) -> int | None:
    """Take a length of time, as microseconds."""
    if value is None:
        return None
    if not isinstance(value, dt.timedelta):
        raise wrong(argument, "a timedelta", value)
    return value // dt.timedelta(microseconds=1)


def callback(argument: str, value: Callable[..., Any] | None) -> None:
    """Take something to call, or nothing."""
    if value is not None and not callable(value):
        raise wrong(argument, "a function", value)
