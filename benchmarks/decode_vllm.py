"""(c) of decode.py: vLLM on embedded prompts, run by a Python that has vLLM and not this package.

    python benchmarks/decode_vllm.py FOLDER DTYPE

FOLDER has the LLM and `prompts.pt`. The last line is JSON: CPU seconds and tokens.
"""

from __future__ import annotations

import json
import os
import sys
import time

# One process on one thread, without compilation, so that its CPU seconds can be compared.
os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCH_COMPILE_DISABLE": "1",
}


def main() -> None:
    import torch
    from vllm import LLM, SamplingParams

    folder, dtype = sys.argv[1:]
    torch.set_num_threads(1)
    given = torch.load(f"{folder}/prompts.pt", weights_only=True)
    llm = LLM(
        folder,
        dtype=dtype,
        enable_prompt_embeds=True,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_model_len=2048,
    )
    prompts = [{"prompt_embeds": prompt_LH} for prompt_LH in given["prompts"]]
    settings = [
        SamplingParams(temperature=0.0, max_tokens=length, ignore_eos=True, detokenize=False)
        for length in given["lengths"]
    ]
    llm.generate(prompts[:1], settings[:1], use_tqdm=False)  # warm up
    began = time.process_time()
    outputs = llm.generate(prompts, settings, use_tqdm=False)
    seconds = time.process_time() - began
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    print(json.dumps({"seconds": round(seconds, 2), "tokens": tokens}))


if __name__ == "__main__":
    main()
