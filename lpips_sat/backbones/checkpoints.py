"""Reading the tensors of a weights file, whoever wrote it. Nothing is unpickled."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # what torch raises at anything but tensors

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import WeightsError
from ..outputs import StrPath

# What `torch.load` and the use of its result raise where a file is damaged or holds other things.
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, UnpicklingError)


def read_checkpoint(path: StrPath) -> dict[str, Tensor]:
    """The named tensors of a ``.safetensors`` file, or of a state dict saved by torch.

    A torch file may hold tensors only: it is read with ``weights_only=True``, which runs no code.

    Raises:
        WeightsError: the file is missing or damaged, or holds something else than named tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"weights file {file} does not exist")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (*UNREADABLE, SafetensorError) as error:
        reason = textwrap.shorten(str(error), 200)
        raise WeightsError(f"cannot read the weights {file}: {reason}") from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{file} must hold a state dict of named tensors; it holds other things")
    return dict(state)
