"""Triton's interpreter at a third less: it patches Triton's language at a launch, and need not at each call in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from featdyn_kernels._dispatch import interpreting


@pytest.fixture(scope="session", autouse=True)
def patched_once() -> Iterator[None]:
    """Let a kernel's call of a function patch what that function sees of the language once a launch."""
    if not interpreting():
        yield
        return
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    done: set[str] = set()

    def once(fn: Callable[..., Any]) -> Any:
        if fn.__module__ in done:
            return interpreter._LangPatchScope()
        done.add(fn.__module__)
        return patch(fn)

    def launched(executor: Any, *arguments: Any, **keywords: Any) -> None:
        done.clear()
        launch(executor, *arguments, **keywords)

    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(interpreter, "_patch_lang", once)
        changes.setattr(interpreter.GridExecutor, "__call__", launched)
        yield
