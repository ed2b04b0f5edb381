"""What vLLM keeps of a checkpoint on each rank, stated plainly with whole arrays: the oracle for layouts and jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from . import tensors


def _narrow(entry: tuple[str, list[int], bytes]) -> np.ndarray:
    """A floating tensor as float16."""
    values = tensors.array(entry)
    if entry[0] == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float16)


class Model:
    """A whole checkpoint in memory."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.types = json.loads((folder / "quant_model_description.json").read_text())
        self.content: tensors.Content = {}
        for path in folder.glob("*.safetensors"):
            self.content |= tensors.read(path)

    def rank(self, rank: int, tp: int) -> dict[str, np.ndarray]:
        """Every tensor of a rank, weights uncompressed."""
        c = self.config
        state: dict[str, np.ndarray] = {}
        vocabulary = -(-c["vocab_size"] // 64) * 64
        names = {"lm_head": "model.embed_tokens" if c["tie_word_embeddings"] else "lm_head"}
        if not c["tie_word_embeddings"]:
            names["model.embed_tokens"] = "model.embed_tokens"
        for name, source in names.items():
            table = _narrow(self.content[f"{source}.weight"])
            padded = np.zeros((vocabulary, c["hidden_size"]), np.float16)
            padded[: len(table)] = table
            state[f"{name}.weight"] = padded[rank * vocabulary // tp : (rank + 1) * vocabulary // tp]
        self._norm(state, "model.norm", c["hidden_size"])
        for layer in range(c["num_hidden_layers"]):
            self._layer(state, f"model.layers.{layer}.", rank, tp)
        return state

    def _norm(self, state: dict[str, np.ndarray], name: str, size: int) -> None:
        state[f"{name}.weight"] = _narrow(self.content[f"{name}.weight"])
        if any("norm.bias" in key for key in self.types):
            bias = f"{name}.bias"
            state[bias] = _narrow(self.content[bias]) if bias in self.content else np.zeros(size, np.float16)

    def _layer(self, state: dict[str, np.ndarray], prefix: str, rank: int, tp: int) -> None:
        c = self.config
        head = c["head_dim"]
        self._norm(state, f"{prefix}input_layernorm", c["hidden_size"])
        self._norm(state, f"{prefix}post_attention_layernorm", c["hidden_size"])
        if c["architectures"] == ["Qwen3ForCausalLM"]:
            self._norm(state, f"{prefix}self_attn.q_norm", head)
            self._norm(state, f"{prefix}self_attn.k_norm", head)
        for name in ("_q_scale", "_k_scale", "_v_scale", "_prob_scale"):
            state[f"{prefix}self_attn.attn.{name}"] = np.array(1, np.float32)
        q = c["num_attention_heads"] // tp * head
        replicas = max(1, tp // c["num_key_value_heads"])
        kv = max(1, c["num_key_value_heads"] // tp) * head
        cut = {"q_proj": (rank * q, q), "k_proj": (rank // replicas * kv, kv), "v_proj": (rank // replicas * kv, kv)}
        self._rows(state, f"{prefix}self_attn.qkv_proj", [(f"{prefix}self_attn.{n}", *cut[n]) for n in cut])
        inner = c["intermediate_size"] // tp
        parts = [(f"{prefix}mlp.{name}", rank * inner, inner) for name in ("gate_proj", "up_proj")]
        self._rows(state, f"{prefix}mlp.gate_up_proj", parts)
        self._columns(state, f"{prefix}self_attn.o_proj", rank, tp)
        self._columns(state, f"{prefix}mlp.down_proj", rank, tp)

    def _rows(self, state: dict[str, np.ndarray], name: str, parts: list[tuple[str, int, int]]) -> None:
        def join(leaf: str) -> np.ndarray:
            return np.concatenate(
                [self._values(f"{part}.{leaf}")[first : first + count] for part, first, count in parts]
            )

        self._linear(state, name, parts[-1][0], join)

    def _columns(self, state: dict[str, np.ndarray], name: str, rank: int, tp: int) -> None:
        def cut(leaf: str) -> np.ndarray:
            values = self._values(f"{name}.{leaf}")
            if leaf != "weight":
                return values
            width = values.shape[1] // tp
            return values[:, rank * width : (rank + 1) * width]

        self._linear(state, name, name, cut)

    def _linear(self, state: dict[str, np.ndarray], name: str, last: str, get: object) -> None:
        kind = self.types[f"{last}.weight"]
        state[f"{name}.weight"] = get("weight")  # type: ignore[operator]
        if name.endswith("qkv_proj") and self.config["architectures"] == ["Qwen2ForCausalLM"]:
            state[f"{name}.bias"] = get("bias")  # type: ignore[operator]
        if kind == "FLOAT":
            return
        if kind == "W8A8_DYNAMIC":
            for leaf in ("weight_scale", "weight_offset"):
                state[f"{name}.{leaf}"] = get(leaf).astype(np.float32)  # type: ignore[operator]
            return
        state[f"{name}.input_scale"] = self._values(f"{last}.input_scale")
        state[f"{name}.input_offset"] = tensors.array(self.content[f"{last}.input_offset"])
        if self.content[f"{last}.input_offset"][0] == "BF16":
            state[f"{name}.input_offset"] = self._values(f"{last}.input_offset")
        state[f"{name}.input_offset"] = state[f"{name}.input_offset"].astype(np.int8)
        for leaf in ("quant_bias", "deq_scale", *(("weight_scale", "weight_offset") if kind == "W8A8" else ())):
            state[f"{name}.{leaf}"] = get(leaf)  # type: ignore[operator]

    def _values(self, name: str) -> np.ndarray:
        entry = self.content[name]
        if name.endswith("deq_scale"):
            values = tensors.array(entry)
            return values if entry[0] == "I64" else values.view(np.int32).astype(np.int64)
        return tensors.array(entry) if entry[0] in ("I8", "I32") else _narrow(entry)
