"""What vLLM keeps of a checkpoint on each rank, stated plainly with whole arrays: the oracle for layouts and jobs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from . import tensors


def _wide(entry: tuple[str, list[int], bytes]) -> np.ndarray:
    """A floating tensor as float32."""
    values = tensors.array(entry)
    if entry[0] == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _narrow(entry: tuple[str, list[int], bytes]) -> np.ndarray:
    """A floating tensor as float16."""
    return _wide(entry).astype(np.float16)


class Model:
    """A whole checkpoint in memory. target: the release whose keys and dtypes are wanted."""

    def __init__(self, folder: Path, target: str = "0.18") -> None:
        self.target = target
        whole = json.loads((folder / "config.json").read_text())
        self.vision = whole.get("vision_config")
        self.config = whole if self.vision is None else whole | whole["text_config"]
        self.hybrid = self.config["architectures"][0].startswith("Qwen3_5")
        self.types = json.loads((folder / "quant_model_description.json").read_text())
        self.content: tensors.Content = {}
        for path in folder.glob("*.safetensors"):
            self.content |= tensors.read(path)

    def rank(self, rank: int, tp: int) -> dict[str, np.ndarray]:
        """Every tensor of a rank, weights uncompressed."""
        state = self._text(rank, tp)
        if self.vision is None:
            return state
        names = (("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."))
        renamed = {name.replace(*names[name.startswith("lm_head")]): values for name, values in state.items()}
        return renamed | {name.removeprefix("model."): value for name, value in self._tower(rank, tp).items()}

    def _text(self, rank: int, tp: int) -> dict[str, np.ndarray]:
        c = self.config
        base = "model" if self.vision is None else "model.language_model"
        state: dict[str, np.ndarray] = {}
        vocabulary = -(-c["vocab_size"] // 64) * 64
        names = {"lm_head": f"{base}.embed_tokens" if c["tie_word_embeddings"] else "lm_head"}
        if not c["tie_word_embeddings"]:
            names[f"{base}.embed_tokens"] = f"{base}.embed_tokens"
        for name, source in names.items():
            table = _narrow(self.content[f"{source}.weight"])
            padded = np.zeros((vocabulary, c["hidden_size"]), np.float16)
            padded[: len(table)] = table
            state[f"{name}.weight"] = padded[rank * vocabulary // tp : (rank + 1) * vocabulary // tp]
        self._norm(state, f"{base}.norm", c["hidden_size"])
        for layer in range(c["num_hidden_layers"]):
            self._layer(state, f"{base}.layers.{layer}.", rank, tp)
        return state

    def _tower(self, rank: int, tp: int) -> dict[str, np.ndarray]:
        """The vision tower: linear layers are cut like the decoder's, all else is whole."""
        state: dict[str, np.ndarray] = {}
        for name in self.content:
            module, _, tensor = name.rpartition(".")
            leaf = module.rpartition(".")[2]
            if not name.startswith("model.visual."):
                continue
            if "norm" in leaf or leaf == "pos_embed" or "patch_embed" in name:
                state[name] = _narrow(self.content[name])
            elif tensor != "weight":
                continue  # with its layer
            elif leaf == "qkv":
                third = len(self._values(name)) // 3
                rows = third // tp
                self._rows(state, module, [(module, part * third + rank * rows, rows) for part in range(3)])
            elif leaf == "linear_fc1":
                rows = len(self._values(name)) // tp
                self._rows(state, module, [(module, rank * rows, rows)])
            else:
                self._columns(state, module, rank, tp)
        return state

    def _norm(self, state: dict[str, np.ndarray], name: str, size: int) -> None:
        state[f"{name}.weight"] = _narrow(self.content[f"{name}.weight"])
        if not self.hybrid and any("norm.bias" in key for key in self.types):
            bias = f"{name}.bias"
            state[bias] = _narrow(self.content[bias]) if bias in self.content else np.zeros(size, np.float16)

    def _layer(self, state: dict[str, np.ndarray], prefix: str, rank: int, tp: int) -> None:
        c = self.config
        self._norm(state, f"{prefix}input_layernorm", c["hidden_size"])
        self._norm(state, f"{prefix}post_attention_layernorm", c["hidden_size"])
        if "num_experts" in c:
            self._experts(state, f"{prefix}mlp.", rank, tp)
        else:
            self._mlp(state, f"{prefix}mlp.", rank, tp, c["intermediate_size"])
        if f"{prefix}linear_attn.A_log" in self.content:
            self._linear_attention(state, f"{prefix}linear_attn.", rank, tp)
        else:
            self._attention(state, prefix, rank, tp)

    def _linear_attention(self, state: dict[str, np.ndarray], prefix: str, rank: int, tp: int) -> None:
        """GatedDeltaNet: heads of keys and of values are dealt, b and a one after the other."""
        c = self.config
        heads = {"k": c["linear_num_key_heads"] // tp, "v": c["linear_num_value_heads"] // tp}
        rows = {"k": heads["k"] * c["linear_key_head_dim"], "v": heads["v"] * c["linear_value_head_dim"]}
        keys = rows["k"] * tp
        qkv = [
            (rank * rows["k"], rows["k"]),
            (keys + rank * rows["k"], rows["k"]),
            (2 * keys + rank * rows["v"], rows["v"]),
        ]
        projected = [(f"{prefix}in_proj_qkv", *cut) for cut in qkv]
        self._rows(state, f"{prefix}in_proj_qkvz", [*projected, (f"{prefix}in_proj_z", rank * rows["v"], rows["v"])])
        parts = [(f"{prefix}in_proj_{name}", rank * heads["v"], heads["v"]) for name in "ba"]
        self._rows(state, f"{prefix}in_proj_ba", parts)
        kernel = _narrow(self.content[f"{prefix}conv1d.weight"])
        state[f"{prefix}conv1d.weight"] = np.concatenate([kernel[first : first + count] for first, count in qkv])
        own = slice(rank * heads["v"], (rank + 1) * heads["v"])
        state[f"{prefix}dt_bias"] = _narrow(self.content[f"{prefix}dt_bias"])[own]
        decay = _narrow if self.target == "0.18" else _wide
        state[f"{prefix}A_log"] = decay(self.content[f"{prefix}A_log"])[own]
        state[f"{prefix}norm.weight"] = _narrow(self.content[f"{prefix}norm.weight"])
        self._columns(state, f"{prefix}out_proj", rank, tp)

    def _attention(self, state: dict[str, np.ndarray], prefix: str, rank: int, tp: int) -> None:
        c = self.config
        head = c["head_dim"]
        if c["architectures"][0].startswith("Qwen3"):
            self._norm(state, f"{prefix}self_attn.q_norm", head)
            self._norm(state, f"{prefix}self_attn.k_norm", head)
        for name in ("_q_scale", "_k_scale", "_v_scale", "_prob_scale"):
            state[f"{prefix}self_attn.attn.{name}"] = np.array(1, np.float32)
        q = c["num_attention_heads"] // tp * head * (2 if self.hybrid else 1)  # with the gates
        replicas = max(1, tp // c["num_key_value_heads"])
        kv = max(1, c["num_key_value_heads"] // tp) * head
        cut = {"q_proj": (rank * q, q), "k_proj": (rank // replicas * kv, kv), "v_proj": (rank // replicas * kv, kv)}
        self._rows(state, f"{prefix}self_attn.qkv_proj", [(f"{prefix}self_attn.{n}", *cut[n]) for n in cut])
        self._columns(state, f"{prefix}self_attn.o_proj", rank, tp)

    def _mlp(self, state: dict[str, np.ndarray], prefix: str, rank: int, tp: int, inner: int) -> None:
        parts = [(f"{prefix}{name}", rank * inner // tp, inner // tp) for name in ("gate_proj", "up_proj")]
        self._rows(state, f"{prefix}gate_up_proj", parts)
        self._columns(state, f"{prefix}down_proj", rank, tp)

    def _experts(self, state: dict[str, np.ndarray], prefix: str, rank: int, tp: int) -> None:
        """Router and stacks, as vLLM Ascend 0.18 names them."""
        state[f"{prefix}experts._gate.weight"] = self._values(f"{prefix}gate.weight")
        inner = self.config["moe_intermediate_size"] // tp
        own = slice(rank * inner, (rank + 1) * inner)

        def stacked(projections: tuple[str, ...], leaf: str, rows: slice, columns: slice) -> np.ndarray:
            names = [
                [f"{prefix}experts.{number}.{projection}.{leaf}" for projection in projections]
                for number in range(self.config["num_experts"])
            ]
            matrices = [np.concatenate([self._values(n)[rows, columns] for n in expert]) for expert in names]
            return np.stack(matrices)

        quantized = self.types[f"{prefix}experts.0.up_proj.weight"] != "FLOAT"
        for leaf in ("weight", "weight_scale", "weight_offset") if quantized else ("weight",):
            columns = own if leaf == "weight" else slice(None)
            w13 = stacked(("gate_proj", "up_proj"), leaf, own, slice(None))
            w2 = stacked(("down_proj",), leaf, slice(None), columns)
            dtype = np.float32 if leaf == "weight_scale" else w13.dtype
            state[f"{prefix}experts.w13_{leaf}"] = w13.astype(dtype)
            state[f"{prefix}experts.w2_{leaf}"] = w2.astype(dtype)
        if f"{prefix}shared_expert_gate.weight" not in self.content:
            return
        gate = self._values(f"{prefix}shared_expert_gate.weight")
        state[f"{prefix}experts._shared_experts.expert_gate.weight"] = gate
        shared: dict[str, np.ndarray] = {}
        self._mlp(shared, f"{prefix}shared_expert.", rank, tp, self.config["shared_expert_intermediate_size"])
        state |= {name.replace("shared_expert", "experts._shared_experts"): value for name, value in shared.items()}

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
        in_qwen2 = name.endswith("qkv_proj") and self.config["architectures"] == ["Qwen2ForCausalLM"]
        if in_qwen2 or ".visual." in name:
            state[f"{name}.bias"] = get("bias")  # type: ignore[operator]
        if kind == "FLOAT":
            return
        if kind == "W8A8_DYNAMIC":
            for leaf in ("weight_scale", "weight_offset"):
                state[f"{name}.{leaf}"] = get(leaf).astype(np.float32)  # type: ignore[operator]
            if self.target != "0.18":
                state[f"{name}.input_scale"] = np.ones(1, np.float16)
                state[f"{name}.input_offset"] = np.zeros(1, np.int8)
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
