"""What a rank's process does: hold its part of a model, append tokens, choose the next one."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch

from . import cpu
from .choice import Chooser
from .directory import config_of
from .group import Alone, Distributed, Group
from .models import model_class
from .sampling import Sampling, Step
from .state import State, load_checkpoint, load_rank


class Rank:
    """One rank of a model; called in lock step with the others."""

    def __init__(
        self, folder: str, size: int, rendezvous: str, room: int, threads: int, budget: int, device: str = "cpu"
    ) -> None:
        """folder: a sharded_state directory, or a W8A8S checkpoint if size is 0; rendezvous: a file for the group.

        room: tokens of the longest sequence; budget: bytes for decoded weights; device: cpu, or npu for NPU `rank`.
        """
        torch.set_num_threads(threads)
        cpu.decoded.budget = budget
        self._folder = Path(folder)
        self._size = size
        self._rendezvous = rendezvous
        self._room = room
        self._device = device

    def load(self, rank: int) -> None:
        """Become a rank; all of them have to be told at once."""
        device, backend = torch.device("cpu"), "gloo"
        if self._device == "npu":
            importlib.import_module("torch_npu")
            device, backend = torch.device("npu", rank), "hccl"
            torch.get_device_module(device).set_device(device)
        group: Group = Distributed(rank, self._size, self._rendezvous, backend) if self._size > 1 else Alone()
        state: State = load_rank(self._folder, rank) if self._size else load_checkpoint(self._folder)
        config = config_of(self._folder)
        self._vocabulary = config.vocabulary
        self._model = model_class(config.architecture)(config, state, group, room=self._room, device=device)

    def start(self, sampling: Sampling) -> None:
        """Begin a new sequence."""
        self._model.reset()
        self._chooser = Chooser(sampling, self._vocabulary)

    def append(self, tokens: list[int]) -> Step:
        """Append tokens and choose the one that follows; every rank chooses the same."""
        new = torch.tensor(tokens)
        self._chooser.see(new)
        with torch.inference_mode():
            logits = self._model.forward(new, last=True)[0].float().cpu()
        best = logits.topk(min(2, len(logits)))
        return Step(self._chooser.choose(logits), float((best.values[0] - best.values[-1]) / logits.std()))

    def logits(self, tokens: list[int]) -> bytes:
        """Teacher-forced logits of a whole sequence: the bytes of float16 [m, vocabulary]."""
        self._model.reset()
        with torch.inference_mode():
            return bytes(self._model.forward(torch.tensor(tokens)).cpu().numpy())
