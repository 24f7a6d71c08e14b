"""Errors as one line of standard error, and the exit codes of all commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from sgl_like.cli.report import say
from sgl_like.errors import EngineError, SglError


@contextmanager
def one_line_errors(console: Console) -> Iterator[None]:
    """What went wrong on one line of standard error, and the exit code for it."""
    try:
        yield
    except KeyboardInterrupt:
        say(console, "interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at exit
        raise typer.Exit(1) from None
    except SglError as error:
        say(console, "error: " + " ".join(str(error).split("\n")))
        raise typer.Exit(1 if isinstance(error, EngineError) else 2) from None
    except OSError as error:
        say(console, f"error: {error}")
        raise typer.Exit(2) from None
