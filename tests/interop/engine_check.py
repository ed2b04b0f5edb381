"""Run in an environment with vLLM's CPU build: what a whole engine makes of prompts, token by token.

    python engine_check.py < cases.json > answers.json

Standard input holds a list of cases, standard output an answer per case; all else goes to standard error.

{"do": "generate", "dir", "tp", "format", "prompts": lists of tokens, "new": tokens to generate, "top": logits per
position}: {"tokens": [[...]], "logits": per prompt, per position from the second on, {token: raw logit}}.
{"do": "norms"}: which parameters vLLM's RMSNorm has for models with and without our quantization, and whether its
results are what the class itself computes.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]


def generate(case: Answer) -> Answer:
    from vllm import LLM, SamplingParams

    llm = LLM(
        case["dir"],
        quantization="w8a8sc",
        load_format=case["format"],
        tensor_parallel_size=case["tp"],
        dtype="float16",
        enforce_eager=True,
        max_model_len=512,
        max_num_seqs=4,
        max_logprobs=case["top"],
        logprobs_mode="raw_logits",
        kv_cache_memory_bytes=1 << 28,
        disable_log_stats=True,
    )
    sampling = SamplingParams(
        temperature=0,
        max_tokens=case["new"],
        ignore_eos=True,
        detokenize=False,
        logprobs=case["top"],
        prompt_logprobs=case["top"],
    )
    prompts = [{"prompt_token_ids": prompt} for prompt in case["prompts"]]
    try:
        results = llm.generate(prompts, sampling, use_tqdm=False)
    finally:
        llm.llm_engine.engine_core.shutdown()  # its workers would poll for work, whatever else runs
    return {
        "tokens": [list(result.outputs[0].token_ids) for result in results],
        "logits": [
            [
                {token: value.logprob for token, value in position.items()}
                for position in [*result.prompt_logprobs[1:], *result.outputs[0].logprobs]
            ]
            for result in results
        ],
    }


def norms(case: Answer) -> Answer:
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.custom_op import op_registry_oot
    from vllm.model_executor.layers.layernorm import RMSNorm
    from vllm.model_executor.layers.quantization import get_quantization_config
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    ours: Any = get_quantization_config("w8a8sc")
    configs = {"no method": None, "no biases": ours({}), "biases": ours({"model.norm.bias": "FLOAT"})}
    x = torch.linspace(-3, 3, 4 * 64).reshape(4, 64).half()
    answer: Answer = {}
    for name, quantization in configs.items():
        config = VllmConfig()
        config.quant_config = quantization
        with set_current_vllm_config(config):
            norm = RMSNorm(64)
            replacement = op_registry_oot.pop("RMSNorm")
            original = RMSNorm(64)
            op_registry_oot["RMSNorm"] = replacement
            results = []
            for module in (norm, original):
                module.weight.data = torch.linspace(0.5, 1.5, 64).half()
                results.append([module(x.clone()), *module(x.clone(), x.clone())])
            if name == "biases":
                norm.bias.data = norm.bias.data.half() + 0.25
                with_bias = [norm(x.clone()), *norm(x.clone(), x.clone())]
                expected = [results[1][0] + 0.25, results[1][1] + 0.25, results[1][2]]
                answer["added"] = all(torch.equal(a, b) for a, b in zip(with_bias, expected))
        parameters = [parameter for parameter, _ in norm.named_parameters()]
        equal = all(torch.equal(a, b) for a, b in zip(*results))
        answer[name] = {
            "replaced": type(original) is RMSNorm is not type(norm),
            "parameters": parameters,
            "equal": equal,
        }
    return answer


_ACTIONS: dict[str, Callable[[Answer], Answer]] = {"generate": generate, "norms": norms}


def main(out: Any) -> None:
    answers = []
    for case in json.load(sys.stdin):
        answers.append(_ACTIONS[case["do"]](case))
        gc.collect()  # ends an engine
    json.dump(answers, out)


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    # A thread each: with several, the order of a sum may change from run to run.
    os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1")
    # Standard output is for the answer: the engine's processes write to standard error.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        main(stdout)
