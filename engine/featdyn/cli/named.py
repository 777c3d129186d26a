"""What a user's own modules hold, by names on the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from featdyn.errors import FeatdynError

if TYPE_CHECKING:
    from torch import nn

    from featdyn.capture import Probes


@contextmanager
def in_a_line(before: str = "", kinds: tuple[type[Exception], ...] = (TypeError, ValueError)) -> Iterator[None]:
    """Say what is wrong with what the user gave as an error of theirs."""
    try:
        yield
    except FeatdynError:
        raise
    except kinds as error:
        what = "" if kinds == (TypeError, ValueError) else f"{type(error).__name__}: "
        raise FeatdynError(f"{before}{what}{error}") from error


def named(name: str) -> Any:
    """Return what ``module:name`` stands for; modules are found from the current folder."""
    module, colon, path = name.partition(":")
    if not colon:
        raise FeatdynError(f"{name}: write module:name")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with in_a_line(f"{name}: ", (Exception,)):  # code of the user, which raises what it pleases
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    return found


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what the network is and how it is asked, as ``featdyn analyze`` takes them."""
    model = click.option("--model", metavar="MODULE:FACTORY", help="A function that makes the network, as for analyze.")
    forward = click.option("--forward", metavar="MODULE:FUNCTION", help="As for analyze.")
    output = click.option("--output", metavar="MODULE:FUNCTION", help="As for analyze.")
    return model(forward(output(command)))


def network(name: str) -> nn.Module:
    """Return the network that a function makes, or that stands there."""
    from torch import nn

    found = made(name)
    if not isinstance(found, nn.Module):
        raise FeatdynError(f"--model {name}: gives {type(found).__name__}, not a torch.nn.Module")
    return found


def factory(name: str) -> nn.Module | Callable[[], nn.Module]:
    """Return the network that stands there, or the function that makes it, as :func:`network` calls it."""
    from torch import nn

    found = named(name)
    return found if isinstance(found, nn.Module) else partial(network, name)


def probes(name: str) -> Probes:
    """Return probes, made of ``(inputs, labels)`` or of a mapping where they are none yet."""
    from featdyn.capture import Probes

    found = made(name)
    if isinstance(found, Probes):
        return found
    if not isinstance(found, Mapping | tuple | list):
        raise FeatdynError(f"--probes {name}: gives {type(found).__name__}, not Probes or (inputs, labels)")
    with in_a_line(f"--probes {name}: "):
        return Probes(**found) if isinstance(found, Mapping) else Probes(*found)


def asked(loss: str | None, forward: str | None, output: str | None) -> dict[str, Any]:
    """Return how the network is asked, as :class:`featdyn.capture.Recorder` takes it."""
    found: dict[str, Any] = {key: named(name) for key, name in (("loss", loss), ("forward", forward)) if name}
    if output is not None:
        found["output"] = int(output) if output.lstrip("-").isdecimal() else output
    return found


def made(name: str) -> Any:
    """Return what stands there, called if it is a function or a class."""
    found = named(name)
    with in_a_line(f"{name}: ", (Exception,)):
        return found() if isinstance(found, type) or (callable(found) and not hasattr(found, "parameters")) else found
