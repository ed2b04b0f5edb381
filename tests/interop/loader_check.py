"""Run in an environment with the real vllm and vllm-ascend: load directories by `sharded_state` and by `w8a8sc`.

    python loader_check.py < cases.json > answers.json

Standard input holds a list of cases, standard output an answer per case; all else goes to standard error.

{"do": "compare", "dir", "tp"}: every rank by both loaders; tensors and attributes after post-processing, bytes.
{"do": "load", "dir", "tp", "rank", "options", "arguments", "unquantized", "shrink"}: one rank by `w8a8sc`; `error` if
it is refused. arguments: of EngineArgs.
{"do": "lora", "dir", "format", "adapter"}: loaded at TP 1 by `format`, wrapped for LoRA, with an adapter made there.
{"do": "times", "dir", "tp", "repeat"}: seconds and bytes of rank 0 by each loader.
{"do": "values" | "files", "model", "dir", "tp"}: what vllm_check.py calls values and load.
{"do": "operator", "dir"}: what the compressed product of a layer is given.
{"do": "arguments"}: what the command line makes of the loader's options. {"do": "spawn"}: what a new process knows.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_PLUGINS", "ascend,ascend_model,w8a8sc")

import lora_check
import real_vllm
import torch
import vllm_check

Answer = dict[str, Any]

# What post-processing leaves beside parameters and buffers.
_ATTRIBUTES = ("aclnn_input_scale", "aclnn_input_scale_reciprocal", "aclnn_input_offset", "weight_nz")


def load(case: Answer, rank: int, load_format: str) -> tuple[Any, tuple[float, float], str]:
    """The model of one rank, the seconds and processor seconds it took to load, the loader's class."""
    from vllm.model_executor.model_loader import get_model_loader

    usual = {"directory": case["dir"], "rank": rank, "tp": case["tp"], "dtype": "float16", "load_format": load_format}
    with real_vllm.rank_config(**{**usual, **case.get("arguments", {})}) as config:
        config.load_config.model_loader_extra_config = case.get("options", {}) if load_format == "w8a8sc" else {}
        if case.get("unquantized"):  # vLLM Ascend finds `ascend` in the directory, given or not
            config.model_config.quantization = None
        loader = get_model_loader(config.load_config)
        start, begin = time.perf_counter(), time.process_time()
        with _shrinking(loader, case["shrink"]) if "shrink" in case else contextlib.nullcontext():
            model = loader.load_model(vllm_config=config, model_config=config.model_config)
        return model, (time.perf_counter() - start, time.process_time() - begin), type(loader).__name__


@contextlib.contextmanager
def _shrinking(loader: Any, path: str) -> Iterator[None]:
    """A rank file is cut when the loader has checked it, just before it reads; afterwards it is whole again."""
    make, whole = loader._make_weights, Path(path).read_bytes()

    def make_weights(*args: Any) -> Any:
        targets = make(*args)
        os.truncate(path, len(whole) // 2)
        return targets

    loader._make_weights = make_weights
    try:
        yield
    finally:
        Path(path).write_bytes(whole)


def sizes(model: Any) -> dict[str, int]:
    """Bytes of all parameters and of the compressed weights among them, memory that two share once."""
    compressed = {f"{name}.weight" for name in real_vllm.sc_layers(model)}
    storages = {p.data.untyped_storage().data_ptr(): (n, p) for n, p in model.named_parameters() if p.numel()}
    total = {n: p.data.untyped_storage().nbytes() for n, p in storages.values()}
    copies = {
        module.weight_nz.untyped_storage().data_ptr(): module.weight_nz.untyped_storage().nbytes()
        for module in model.modules()
        if isinstance(getattr(module, "weight_nz", None), torch.Tensor)
        and module.weight_nz.untyped_storage().data_ptr() not in storages
    }
    return {
        "parameters": sum(total.values()),
        "compressed": sum(total[name] for name in compressed),
        "embedding_copies": sum(copies.values()),
    }


def differences(stock: Any, ours: Any) -> list[str]:
    """Where two models differ, apart from the length of compressed weights, whose front has to be the same."""
    compressed = {f"{name}.weight" for name in real_vllm.sc_layers(stock)}
    first, second = stock.state_dict(), ours.state_dict()
    differences = [f"{name} is in one model only" for name in set(first) ^ set(second)]
    for name in sorted(set(first) & set(second)):
        a, b = first[name], second[name]
        if name in compressed:
            alone = b.is_contiguous() and b.storage_offset() == 0 and b.untyped_storage().nbytes() == b.numel()
            if not alone or b.dim() != 1 or not vllm_check.same_bits(a[: b.numel()], b):
                differences.append(f"{name}: not the compressed bytes alone")
        elif a.shape != b.shape or a.dtype != b.dtype or not vllm_check.same_bits(a, b):
            differences.append(f"{name}: {vllm_check.text(a)}, {vllm_check.text(b)}")
    modules = dict(ours.named_modules())
    for name, module in stock.named_modules():
        for attribute in _ATTRIBUTES:
            a, b = getattr(module, attribute, None), getattr(modules[name], attribute, None)
            if (a is None) != (b is None) or (isinstance(a, torch.Tensor) and not vllm_check.same_bits(a, b)):
                differences.append(f"{name}.{attribute}")
    return differences


def compare(case: Answer) -> Answer:
    ranks = []
    for rank in range(case["tp"]):
        stock, _, stock_loader = load(case, rank, "sharded_state")
        ours, _, loader = load(case, rank, "w8a8sc")
        again, _, _ = load(case, rank, "sharded_state")
        files, _ = vllm_check.read_rank(case["dir"], rank)
        ranks.append(
            {
                "differences": differences(stock, ours),
                "loaders": [stock_loader, loader],
                "stock": sizes(stock),
                "ours": sizes(ours),
                "stock_afterwards": sizes(again),
                "files": sum(tensor.numel() * tensor.element_size() for tensor in files.values()),
                "schemes": schemes(ours),
            }
        )
        del stock, ours, again
        gc.collect()
    return {"ranks": ranks}


def schemes(model: Any) -> list[str]:
    methods = [module.quant_method for module in model.modules() if hasattr(module, "quant_method")]
    return sorted({type(getattr(method, "quant_method", method)).__name__ for method in methods})


def load_one(case: Answer) -> Answer:
    model, _, _ = load(case, case.get("rank", 0), "w8a8sc")
    return sizes(model)


def times(case: Answer) -> Answer:
    """Building, loading and post-processing by each loader in turns: seconds, processor seconds, bytes of parameters.

    One thread, and the files are in the page cache, all but the first time.
    """
    torch.set_num_threads(1)
    ways = {
        "sharded_state": ("sharded_state", {}),
        "hashes": ("w8a8sc", {"verify": "hashes"}),
        "sizes": ("w8a8sc", {"verify": "sizes"}),
    }
    answer: Answer = {name: {"seconds": [], "processor": []} for name in ways}
    for _ in range(case["repeat"]):
        for name, (load_format, options) in ways.items():
            model, (seconds, processor), _ = load({**case, "options": options}, 0, load_format)
            answer[name]["processor"].append(round(processor, 2))
            answer[name]["seconds"].append(round(seconds, 2))
            answer[name] |= sizes(model)
            del model
            gc.collect()
    return answer


def checked(case: Answer) -> Answer:
    """A command of vllm_check for all ranks."""
    rank_check = {"values": vllm_check.values_rank, "files": vllm_check.load_rank}[case["do"]]
    args = argparse.Namespace(dir=case["dir"], model=case.get("model"), tp=case["tp"], dtype="float16", rank=None)
    ranks = vllm_check.per_rank(args, rank_check)
    errors, _ = vllm_check.check_files(case["dir"], case["tp"])
    return {"errors": [*errors, *(error for rank in ranks for error in rank["errors"])], "ranks": ranks}


def lora(case: Answer) -> Answer:
    adapter = lora_check.write_adapter(case["dir"], Path(case["adapter"]))
    arguments = {"enable_lora": True, "max_lora_rank": lora_check.RANK}
    model, _, _ = load({**case, "tp": 1, "arguments": arguments}, 0, case["format"])
    with real_vllm.rank_config(case["dir"], 0, 1, "float16", load_format=case["format"], **arguments) as config:
        return {"layers": lora_check.run_wrapped(model, config, adapter)}


def operator(case: Answer) -> Answer:
    """The arguments of the compressed product, for every compressed layer: dtypes and shapes."""
    import torch_npu

    model, _, _ = load(case, 0, "w8a8sc")
    calls: dict[str, list[str]] = {}
    for name, (k, n) in real_vllm.sc_layers(model).items():
        given: list[str] = []

        def product(*tensors: Any, given: list[str] = given, n: int = n) -> Any:
            given.extend(vllm_check.text(tensor) for tensor in tensors)
            return torch.zeros(tensors[0].shape[0], n, dtype=torch.float16)

        torch_npu.npu_matmul_compress_dequant = product
        module = model.get_submodule(name)
        module.quant_method.quant_method.apply(module, torch.zeros(3, k, dtype=torch.int8))
        calls[name] = given
    return {"calls": calls, "sizes": {name: list(size) for name, size in real_vllm.sc_layers(model).items()}}


def arguments(case: Answer) -> Answer:
    """vLLM's own parser and EngineArgs, given our options; the loader that comes out."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    made = []
    for words in case["words"]:
        args = EngineArgs.from_cli_args(parser.parse_args(["--model", case["dir"], *words]))
        config = args.create_load_config()
        loader = get_model_loader(config)
        made.append([f"{type(loader).__module__}.{type(loader).__name__}", repr(getattr(loader, "_options", None))])
    return {"loaders": made}


def known_in_this_process(plugins: str | None) -> list[str]:
    """In a new process: register what VLLM_PLUGINS allows, as a worker does first; the load formats that are there."""
    from vllm.model_executor import model_loader
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    modules = {"numba", "w8a8sc_tool.vllm.loader"} & set(sys.modules)
    return [*(name for name in model_loader._LOAD_FORMAT_TO_MODEL_LOADER if name == "w8a8sc"), *sorted(modules)]


def spawn(case: Answer) -> Answer:
    """Processes started as vLLM starts workers; plugins: their VLLM_PLUGINS."""
    before = os.environ["VLLM_PLUGINS"]
    os.environ["VLLM_PLUGINS"] = case["plugins"]
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return {"known": pool.apply(known_in_this_process, (case["plugins"],))}
    finally:
        os.environ["VLLM_PLUGINS"] = before


_ACTIONS: dict[str, Callable[[Answer], Answer]] = {
    "compare": compare,
    "load": load_one,
    "times": times,
    "values": checked,
    "files": checked,
    "lora": lora,
    "operator": operator,
    "arguments": arguments,
    "spawn": spawn,
}


def answer(case: Answer) -> Answer:
    try:
        return _ACTIONS[case["do"]](case)
    except Exception as error:
        traceback.print_exc()
        return {"error": str(error), "type": type(error).__name__}
    finally:
        gc.collect()


def main() -> None:
    from vllm.plugins import load_general_plugins

    sys.dont_write_bytecode = True
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        load_general_plugins()
        json.dump([answer(case) for case in json.load(sys.stdin)], out)
    sys.stderr.flush()
    os._exit(0)  # vllm's exit handlers would talk to the device


if __name__ == "__main__":
    main()
