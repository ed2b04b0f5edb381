"""What a chip's memory has to hold while it serves, and how long a sequence may get (docs/serving.md)."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Final

from ..checkpoint import ModelConfig
from ..errors import UsageError
from .cache import BLOCK, Cache, cache_of

CHIP_MEMORY: Final = 43693 << 20  # what npu-smi shows of a chip of the 96 GB card, at least
UTILIZATION: Final = 0.90  # --gpu_memory_utilization of the guide

# One compressed causal mask serves every length (vLLM Ascend, _310p/attention/attention_mask.py): float16 [2048, 2048].
COMPRESSED_MASK: Final = 2 * 2048 * 2048
# Without it: a float16 mask of L x L, another once a prompt is split, and 6 L^2 bytes while one is built.
_MASK: Final = 2
_MASK_PEAK: Final = 6

_BATCHED_TOKENS: Final = 2048  # of one step: vLLM's default
_CONTEXT: Final = 512 << 20  # CANN, HCCL and the graphs: a guess

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(i?[bB])?")
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of "44G", "43693M" or a number; units are powers of 1024, as npu-smi counts. Raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"{text} is not a size", remedy="write one like 44G")
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclass(frozen=True)
class Estimate:
    """The memory of one chip at one tensor-parallel size, in bytes. activations: an estimate, all else is counted.

    plugin_weights: what the weights take if every compressed one has its own length; None if that is not known.
    guessed: whether max_num_seqs is nobody's advice: neither the user's nor a preset's.
    """

    tp: int
    chip: int
    utilization: float
    weights: int
    embedding_copies: int
    activations: int
    cache: Cache
    compressed_masks: bool
    max_num_seqs: int
    longest_position: int
    wanted_len: int | None
    plugin_weights: int | None = None
    guessed: bool = False

    @property
    def with_plugin(self) -> Estimate | None:
        """The same with our plugin for vLLM, which allocates compressed weights at their own length."""
        if self.plugin_weights is None:
            return None
        return dataclasses.replace(self, weights=self.plugin_weights, plugin_weights=None)

    @property
    def kv_cache(self) -> int:
        """vLLM Ascend gives the KV cache half of what is left on 310P."""
        left = int(self.chip * self.utilization) - self.weights - self.embedding_copies - self.activations
        return max(0, left // 2)

    @property
    def kv_per_token(self) -> int:
        """Bytes of a token's keys and values in all layers."""
        return self.cache.per_token

    @property
    def _kv_blocks(self) -> int:
        return self.kv_cache // (self.kv_per_token * self.cache.block)

    @property
    def kv_tokens(self) -> int:
        """How many tokens of one sequence the cache holds, in whole blocks, beside its states if it has some."""
        return max(0, self._kv_blocks - self.cache.state_blocks) * self.cache.block

    @property
    def free_for_masks(self) -> int:
        caches = self.cache.allocations * self.kv_cache
        return max(0, self.chip - self.weights - self.embedding_copies - self.activations - caches)

    def limits(self, *, compressed_masks: bool) -> dict[str, int]:
        """Tokens that a sequence may have, by what limits them."""
        lengths = {"KV cache": self.kv_tokens, "model's positions": self.longest_position}
        if not compressed_masks:
            lengths["causal masks"] = math.isqrt(self.free_for_masks // _MASK_PEAK) // BLOCK * BLOCK
        return lengths

    def largest_len(self, *, compressed_masks: bool) -> int:
        """The largest safe max-model-len."""
        return min(self.limits(compressed_masks=compressed_masks).values())

    def reason(self, *, compressed_masks: bool) -> str:
        """What limits it."""
        limits = self.limits(compressed_masks=compressed_masks)
        return min(limits, key=lambda name: limits[name])

    @property
    def length(self) -> int:
        """The max-model-len that is looked at: the one asked for, else the largest that this machine can have."""
        return self.wanted_len or self.largest_len(compressed_masks=self.compressed_masks)

    @property
    def fits(self) -> bool:
        """Whether the weights fit, and the max-model-len asked for, if one was."""
        return self.largest_len(compressed_masks=self.compressed_masks) >= (self.wanted_len or BLOCK)

    @property
    def full_length_sequences(self) -> float:
        """How many sequences of that length the cache holds at a time."""
        return self._kv_blocks * self.cache.block / max(1, self.length + self.cache.state_blocks * self.cache.block)

    def document(self) -> dict[str, object]:
        without, compressed = (
            {
                "masks_bytes": mask_bytes(self.length, compressed=kind),
                "masks_peak_bytes": mask_peak_bytes(self.length, compressed=kind),
                "largest_max_model_len": self.largest_len(compressed_masks=kind),
                "limited_by": self.reason(compressed_masks=kind),
                "limits": self.limits(compressed_masks=kind),
            }
            for kind in (False, True)
        )
        return {
            "tensor_parallel_size": self.tp,
            "fits": self.fits,
            "chip_bytes": self.chip,
            "weights_bytes": self.weights,
            "embedding_copies_bytes": self.embedding_copies,
            "activations_bytes_estimated": self.activations,
            "kv_cache_bytes": self.kv_cache,
            "kv_bytes_per_token": self.kv_per_token,
            "kv_block_tokens": self.cache.block,
            "state_bytes_per_sequence": self.cache.state,
            "kv_cache_allocations": self.cache.allocations,
            "kv_tokens": self.kv_tokens,
            "max_model_len": self.length,
            "max_num_seqs": self.max_num_seqs,
            "max_num_seqs_is_a_guess": self.guessed,
            "sequences_of_full_length": round(self.full_length_sequences, 2),
            "compressed_masks_here": self.compressed_masks,
            "without_compressed_masks": without,
            "with_compressed_masks": compressed,
            "with_plugin": None if self.with_plugin is None else self.with_plugin.document(),
        }


def mask_bytes(length: int, *, compressed: bool) -> int:
    """Bytes of the causal masks for sequences of up to `length` tokens, prompts in pieces included."""
    return COMPRESSED_MASK if compressed else 2 * _MASK * length * length


def mask_peak_bytes(length: int, *, compressed: bool) -> int:
    """Bytes while they are built."""
    return COMPRESSED_MASK if compressed else _MASK_PEAK * length * length


def estimate(
    config: ModelConfig,
    tp: int,
    weights: int,
    *,
    chip: int = CHIP_MEMORY,
    max_num_seqs: int = 32,
    max_model_len: int | None = None,
    compressed_masks: bool = False,
    utilization: float = UTILIZATION,
    plugin_weights: int | None = None,
    guessed: bool = False,
) -> Estimate:
    """Memory of one chip. weights: bytes of a rank's tensors as vLLM Ascend allocates them: compressed ones whole.

    plugin_weights: the same with compressed ones at their own length, None if they are not known.
    guessed: see Estimate.

    Embeddings and lm_head count twice: vLLM Ascend 0.18 and 0.23 keep a FRACTAL_NZ copy of each beside the original
    (_310p/ops/vocab_parallel_embedding.py: weight and weight_nz).
    """
    cache = cache_of(config, tp)
    row = -(-config.vocabulary // 64) * 64 // tp * config.hidden_size * 2
    return Estimate(
        tp=tp,
        chip=chip,
        utilization=utilization,
        weights=weights,
        embedding_copies=(1 if config.tied else 2) * row,
        activations=_activations(config, cache, tp, max_num_seqs),
        cache=cache,
        compressed_masks=compressed_masks,
        max_num_seqs=max_num_seqs,
        longest_position=min(config.positions, config.window or config.positions),
        wanted_len=max_model_len,
        plugin_weights=plugin_weights,
        guessed=guessed,
    )


def _activations(config: ModelConfig, cache: Cache, tp: int, max_num_seqs: int) -> int:
    """An estimate: a step's float16 values around one layer, logits in float16 and float32, and a fixed part."""
    per_token = 4 * config.hidden_size + cache.width + 3 * config.intermediate_size // tp
    return _BATCHED_TOKENS * per_token * 2 + max_num_seqs * config.vocabulary * (2 + 4) + _CONTEXT
