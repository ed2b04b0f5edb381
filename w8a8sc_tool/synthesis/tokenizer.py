"""A working tokenizer for synthesized checkpoints: every byte is a token, and every other id decodes to a word."""

from __future__ import annotations

from typing import Any

_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aeiou"

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _byte_characters() -> list[str]:
    """The printable character that byte-level BPE uses for each byte (the GPT-2 table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + hidden.index(byte)) for byte in range(256)]


def _word(number: int) -> str:
    """A pronounceable word for a number, with the space that byte-level BPE puts in front."""
    syllables = ""
    number += 1
    while number:
        number, syllable = divmod(number, len(_CONSONANTS) * len(_VOWELS))
        syllables += _CONSONANTS[syllable // len(_VOWELS)] + _VOWELS[syllable % len(_VOWELS)]
    return "\u0120" + syllables


def tokenizer_files(vocabulary: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Ids of the special tokens, and the contents of tokenizer.json and tokenizer_config.json by file name."""
    special = {"end_of_text": 256, "start_of_turn": 257, "end_of_turn": 258}
    texts = {"end_of_text": "<|endoftext|>", "start_of_turn": "<|im_start|>", "end_of_turn": "<|im_end|>"}
    ids = {character: byte for byte, character in enumerate(_byte_characters())}
    ids |= {texts[name]: number for name, number in special.items()}
    ids |= {_word(number): number for number in range(len(ids), vocabulary)}
    added = [
        {
            "id": number,
            "content": texts[name],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for name, number in special.items()
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": ids,
            "merges": [],
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": texts["end_of_turn"],
        "pad_token": texts["end_of_text"],
        "model_max_length": 131072,
        "chat_template": _TEMPLATE,
    }
    return special, {"tokenizer.json": tokenizer, "tokenizer_config.json": config}
