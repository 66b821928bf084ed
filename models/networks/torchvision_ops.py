"""Lets libraries import torchvision where its compiled part does not fit this build of torch.

Enters and leaves: nothing. The public wheel of torchvision is linked to CUDA; beside a CPU build of
torch its first import fails with "operator torchvision::nms does not exist", and so does the import
of timm, and of peft wherever torchvision is installed (pytorch/vision#8985). This module does not
know what they are imported for.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import torch

_BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache  # keeps the library alive: its operators vanish with it
def register() -> torch.library.Library | None:
    """Declare the operators that torchvision looks for; call it before timm or peft is imported.

    Only the declaration is made up, and only where the compiled one cannot be had or nobody needs
    it: a call of the operator raises an error then. Every process needs its
    own call.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, "nms"):
        return None
    for compiled in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(compiled))  # type: ignore[no-untyped-call]
        except OSError:
            continue
        return None
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(name + _BOXES)  # type: ignore[no-untyped-call]
    return library
