"""Stand-ins for what a machine without an NPU lacks, so that vllm and vllm_ascend import there unchanged.

Faked: torch_npu, torchair, acl, mooncake, torch.npu, and vllm-ascend's own compiled extensions (present in its
wheel, never loaded). Nothing that creates, loads or shards weights is touched.

Importing this module installs them. Import it before torch, vllm and vllm_ascend.
"""

import importlib.machinery
import os
import sys
import types
from typing import Any
from unittest.mock import MagicMock

for _name, _value in {
    # The platform plugin and (from vllm-ascend 0.23 on) the model registrations; not KV connectors and profilers.
    "VLLM_PLUGINS": "ascend,ascend_model",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    "GLOO_SOCKET_IFNAME": "lo",
}.items():
    os.environ.setdefault(_name, _value)


class _Anything(types.ModuleType):
    """A module in which every name exists and is a mock."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name)
        self.__path__ = []
        self.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        self.__dict__.update(attributes)
        sys.modules[name] = self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        mock = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, mock)
        return mock


def _install() -> None:
    extension = MagicMock(name="torch_npu._C")
    extension._NPUTaskGroupHandle = type("_NPUTaskGroupHandle", (), {})  # used in a type annotation
    torch_npu = _Anything(
        "torch_npu",
        __version__="2.13.0",
        _C=extension,
        # Type codes that vllm_ascend compares dtypes with.
        float4_e2m1fn_x2=296,
        hifloat8=290,
        float8_e8m0fnu=293,
        # As the real one: a new plain tensor of the same values; only the layout on the device differs.
        npu_format_cast=lambda tensor, *args, **kwargs: tensor.detach().clone(),
    )
    sys.modules["torch_npu._C"] = extension
    sys.modules["torch_npu._C._distributed_c10d"] = extension._distributed_c10d
    sys.modules["torch_npu._inductor"] = torch_npu._inductor
    for name in ("torchair", "acl", "acl.rt", "mooncake", "mooncake.engine"):
        _Anything(name)

    # vllm_ascend: the wheels are built for Atlas A2; on a 310P this generated module says so instead.
    _Anything("vllm_ascend._build_info", __device_type__="_310P", __soc_version__="ascend310p3")
    # None makes the import fail with ImportError: no custom kernels, as in an installation without them.
    sys.modules["vllm_ascend.vllm_ascend_C"] = None  # type: ignore[assignment]
    # Patches torchair's graph compiler at import.
    _Anything("vllm_ascend.patch.worker.patch_npugraph_ex_triton")
    # Registers operators of torchvision's compiled part, which is not loaded.
    _Anything("torchvision._meta_registrations")

    import torch

    torch.utils.rename_privateuse1_backend("npu")
    torch.npu = MagicMock(name="torch.npu")
    torch.npu.is_available = lambda: False
    torch.npu.device_count = lambda: 16
    torch.npu.current_device = lambda: torch.device("cpu")  # some layers create their tensors there
    torch.npu.get_device_name = lambda *args: "Ascend310P3"
    torch.npu.Stream = type("Stream", (), {})
    torch.npu.Event = type("Event", (), {})
    torch.Tensor.npu = lambda self, *args, **kwargs: self
    torch.version.cann = None
    torch.distributed.is_hccl_available = lambda: True


_install()
