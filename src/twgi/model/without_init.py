"""Networks whose weights come from a file need no initial ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


def without_init() -> TorchFunctionMode:
    """Leaves out the initial values of weights: on the meta device, drawing them imports torch's compiler (seconds)."""
    return _WithoutInit()


class _WithoutInit(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)
