"""Build and load the real vllm + vllm_ascend model of one tensor-parallel rank on a CPU.

Real: configuration, platform plugin, model classes, 310P quantization schemes, weight loaders, sharding and
`ShardedStateLoader`. Faked: kernels and device (npu_stubs) and the parallel groups, which only tell a rank its
number and the group's size.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import npu_stubs  # noqa: F401  (first: it prepares the imports below)
import torch

Tensors = dict[str, torch.Tensor]


class _Group:
    """What the model code asks of a vllm GroupCoordinator. Anything else, communication above all, is an error."""

    device_communicator = None
    use_custom_op_call = False

    def __init__(self, name: str, rank: int, size: int) -> None:
        self.unique_name = name
        self.rank = self.rank_in_group = self.local_rank = rank
        self.world_size = size
        self.ranks = list(range(size))
        self.first_rank, self.last_rank = 0, size - 1
        self.is_first_rank, self.is_last_rank = rank == 0, rank == size - 1
        self.device = torch.device("cpu")
        self.device_group = self.cpu_group = torch.distributed.group.WORLD

    def all_gather(self, tensor: torch.Tensor, dim: int = -1) -> torch.Tensor:
        if self.world_size > 1:
            raise RuntimeError(f"the simulated {self.unique_name} group cannot communicate")
        return tensor

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not available in the simulated {self.__dict__.get('unique_name')} group")


@functools.cache
def _start() -> None:
    """What a vllm-ascend worker process does before it builds a model."""
    from vllm.model_executor.layers.linear import WEIGHT_LOADER_V2_SUPPORTED
    from vllm.model_executor.models import registry
    from vllm_ascend.utils import adapt_patch, register_ascend_customop

    registry._run_in_subprocess = lambda function: function()  # a child process would lack the stand-ins
    adapt_patch(is_global_patch=True)
    adapt_patch()
    register_ascend_customop()
    if "UnquantizedLinearMethod" in WEIGHT_LOADER_V2_SUPPORTED:  # as NPUWorker.__init__
        WEIGHT_LOADER_V2_SUPPORTED.remove("UnquantizedLinearMethod")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


@contextlib.contextmanager
def rank_config(
    directory: str, rank: int, tp: int, dtype: str, load_format: str = "auto", **arguments: Any
) -> Iterator[Any]:
    """The VllmConfig of `vllm serve directory --quantization ascend -tp tp`, current within the block, for `rank`.

    arguments: more of EngineArgs, or others in place of these.
    """
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm_ascend.distributed import parallel_state as ascend_parallel_state

    _start()
    usual = {
        "model": directory,
        "quantization": "ascend",
        "dtype": dtype,
        "tensor_parallel_size": tp,
        "load_format": load_format,
        "enforce_eager": True,
        "skip_tokenizer_init": True,
        "distributed_executor_backend": "mp",
        "use_tqdm_on_load": False,
    }
    config = EngineArgs(**{**usual, **arguments}).create_engine_config()
    config.load_config.device = "cpu"
    config.parallel_config.rank = rank
    with contextlib.ExitStack() as stack:
        groups = [_Group(name, rank, tp) for name in ("WORLD", "TP", "EP")]
        groups += [_Group(name, 0, 1) for name in ("PP", "DP", "DCP", "PCP")]
        for group in groups:
            stack.enter_context(mock.patch.object(parallel_state, f"_{group.unique_name}", group, create=True))
        stack.enter_context(mock.patch.object(ascend_parallel_state, "_MC2", _Group("MC2", rank, tp)))
        stack.enter_context(set_current_vllm_config(config))
        yield config


def build(config: Any) -> torch.nn.Module:
    """The model as every loader builds it, its weights uninitialised."""
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    with set_default_torch_dtype(config.model_config.dtype), torch.device("cpu"):
        return initialize_model(vllm_config=config, model_config=config.model_config)


def state_of(model: torch.nn.Module) -> Tensors:
    """The state dictionary that ShardedStateLoader fills: every key must be in the files, and no other."""
    from vllm.model_executor.model_loader import ShardedStateLoader

    state: Tensors = ShardedStateLoader._filter_subtensors(model.state_dict())
    return state


def sc_layers(model: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Module name -> (k, n) of this rank, for every linear layer that vllm-ascend treats as W8A8SC.

    A module may be reachable by several names (shared experts): `state_of` keeps the one that sorts first.
    """
    from vllm_ascend._310p.quantization.methods.w8a8sc import AscendW8A8SCLinearMethod310

    names: dict[int, str] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        method = getattr(getattr(module, "quant_method", None), "quant_method", None)
        if isinstance(method, AscendW8A8SCLinearMethod310):
            names[id(module)] = min(names.get(id(module), name), name)
            sizes[name] = (module.input_size_per_partition, sum(module.output_partition_sizes))
    return {name: sizes[name] for name in names.values()}


def load_sharded(config: Any, model: torch.nn.Module) -> str:
    """Fill `model` with the loader vllm chooses for `config`; return that loader's class name."""
    from vllm.model_executor.model_loader import get_model_loader

    loader = get_model_loader(config.load_config)
    loader.load_weights(model, config.model_config)
    return f"{type(loader).__module__}.{type(loader).__qualname__}"


def postprocess(config: Any, model: torch.nn.Module) -> None:
    """The step after loading, in which the 310P schemes bring the weights into kernel form."""
    from vllm.model_executor.model_loader.utils import process_weights_after_loading

    process_weights_after_loading(model, config.model_config, torch.device("cpu"))


@dataclass
class Loaded:
    """A source checkpoint in a rank's model, just before post-processing: what a sharded_state file must hold."""

    state: Tensors = field(default_factory=dict)
    written: set[str] | None = None  # parameters that the model's weight loader reports
    undefined: dict[str, int] = field(default_factory=dict)  # key -> elements that the checkpoint does not provide
    reinterpreted: list[str] = field(default_factory=list)  # checkpoint names of float32 deq_scale tensors


def load_source(config: Any) -> Loaded:
    """Load an unsharded checkpoint with vllm's own loader and weight loaders.

    The one deviation: a float32 `deq_scale` for an int64 parameter is handed over as its bits (as int32, widened to
    int64), the form the 310P kernels take. vllm's numeric cast would turn almost all of them into zero.
    """
    from vllm.model_executor.model_loader import base_loader, get_model_loader

    loaded = Loaded()
    loader = get_model_loader(config.load_config)
    read, load_weights = loader.get_all_weights, loader.load_weights

    def get_all_weights(model_config: Any, model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
        wants_int64 = any(p.dtype == torch.int64 for n, p in model.named_parameters() if n.endswith(".deq_scale"))
        for name, tensor in read(model_config, model):
            if wants_int64 and name.endswith(".deq_scale") and tensor.dtype == torch.float32:
                loaded.reinterpreted.append(name)
                tensor = tensor.view(torch.int32).to(torch.int64)
            yield name, tensor

    def load_and_record(model: torch.nn.Module, model_config: Any) -> None:
        inner = model.load_weights

        def record(*args: Any, **kwargs: Any) -> Any:
            written = inner(*args, **kwargs)
            loaded.written = None if written is None else set(written)
            return written

        with mock.patch.object(model, "load_weights", record):
            load_weights(model, model_config)

    def keep_state(model: torch.nn.Module, *args: Any) -> None:
        loaded.state = {key: tensor.detach() for key, tensor in state_of(model).items()}
        loaded.undefined = _undefined(model, loaded)

    # New memory is filled with NaN or the largest integer, so that parameters nobody wrote can be recognised.
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with (
            mock.patch.object(loader, "get_all_weights", get_all_weights),
            mock.patch.object(loader, "load_weights", load_and_record),
            mock.patch.object(base_loader, "process_weights_after_loading", keep_state),
        ):
            loader.load_model(vllm_config=config, model_config=config.model_config)
    finally:
        torch.use_deterministic_algorithms(was)
    return loaded


def _undefined(model: torch.nn.Module, loaded: Loaded) -> dict[str, int]:
    """Keys with elements nobody wrote. In int8 (where 127 is also a value) only whole tensors can be recognised."""
    everything = model.state_dict()
    names_at: dict[int, set[str]] = {}
    for name, tensor in everything.items():
        names_at.setdefault(tensor.data_ptr(), set()).add(name)
    undefined = {}
    for key, tensor in loaded.state.items():
        untouched = loaded.written is not None and not names_at[everything[key].data_ptr()] & loaded.written
        if tensor.dtype == torch.int8 and not untouched:
            continue
        empty = tensor.isnan() if tensor.is_floating_point() else tensor == torch.iinfo(tensor.dtype).max
        if count := int(empty.sum()):
            undefined[key] = count
    return undefined
