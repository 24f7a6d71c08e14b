"""Compiling kernels for a GPU that is not there, to see that they compile and what they take of it.

Triton needs a driver only to ask which GPU to compile for, and to launch. With a stand-in that answers the first
question, an op called with tensors of the CPU compiles just what it would launch; its result is memory as it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from sgl_like.kernels.triton import attention, grouped, quantized
from sgl_like.kernels.triton.base import INTERPRETED
from sgl_like.kernels.triton.tuning import Config


class NoDriver:
    """What Triton asks a driver for when it compiles, answered for a GPU that is not there."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        """The GPU to compile for."""
        return self._target

    def get_current_device(self) -> int:
        """A number for it."""
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        """There is none."""
        return 0


@contextmanager
def compiling(capability: int, seen: Callable[[Any], None]) -> Iterator[None]:
    """Launches are compiled instead of being run; tuning takes all configurations. Triton keeps the stand-in.

    Args:
        capability: of the GPU, without the dot.
        seen: gets each compiled kernel, whenever it is launched.
    """
    assert not INTERPRETED, "interpreted kernels are not compiled"
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        seen(kernel)
        return kernel

    def all_of(
        op: str, key: Sequence[object], configs: Sequence[Config], launch: Callable[[Config], None]
    ) -> Config:
        for config in configs[1:]:
            launch(config)
        return configs[0]

    driver.set_active(NoDriver(capability))
    JITFunction.run = compile_only
    modules: list[Any] = [module for module in (attention, quantized, grouped) if hasattr(module, "choose")]
    chosen = [module.choose for module in modules]
    for module in modules:
        module.choose = all_of
    try:
        yield
    finally:
        JITFunction.run = run
        for module, choose in zip(modules, chosen, strict=True):
            module.choose = choose
