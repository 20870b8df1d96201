"""What servers say, shortened: llama-server 0c1e570 recorded here; vLLM 0.12 and Ollama 0.40 as their documentation has it."""

from fakes import Answer, answer_json, sse


def llamacpp_events(count=4):
    """/completion of llama-server."""
    tokens = [
        {"index": 0, "content": f" w{n}", "tokens": [300 + n], "stop": False, "id_slot": -1, "tokens_predicted": n + 1,
         "tokens_evaluated": 3}
        for n in range(count)
    ]  # fmt: skip
    last = {
        "index": 0, "content": "", "tokens": [], "id_slot": 3, "stop": True, "model": "tiny.gguf",
        "tokens_predicted": count, "tokens_evaluated": 3, "generation_settings": {"seed": 1, "samplers": ["top_k"]},
        "stop_type": "limit", "stopping_word": "", "truncated": False,
        "timings": {"cache_n": 0, "prompt_n": 3, "prompt_ms": 12.5, "prompt_per_token_ms": 4.1667,
                    "prompt_per_second": 240.0, "predicted_n": count, "predicted_ms": 30.0,
                    "predicted_per_token_ms": 10.0, "predicted_per_second": 100.0},
    }  # fmt: skip
    return sse(*tokens, last, done=False)


LLAMACPP = {
    "GET /props": answer_json({"default_generation_settings": {"n_ctx": 512}, "build_info": "b1-0c1e570"}),
    "GET /health": answer_json({"status": "ok"}),
    "GET /v1/models": answer_json({"object": "list", "data": [{"id": "tiny.gguf", "object": "model"}]}),
    "GET /metrics": Answer(
        [
            (
                b"# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.\n"
                b"# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 2048\n"
                b"llamacpp:tokens_predicted_total 128\nllamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n"
            )
        ],
        kind="text/plain",
    ),
    "POST /completion": Answer(llamacpp_events(), kind="text/event-stream"),
}


def vllm_events(count=4):
    """/v1/completions of vLLM with include_usage: a chunk each token, the last with its reason, then the counts."""
    tokens = [
        {"id": "cmpl-ae7c", "object": "text_completion", "created": 1758038918, "model": "meta-llama/Llama-3.1-8B",
         "choices": [{"index": 0, "text": f" w{n}", "logprobs": None, "stop_reason": None,
                      "finish_reason": "length" if n == count - 1 else None}], "usage": None}
        for n in range(count)
    ]  # fmt: skip
    usage = {"id": "cmpl-ae7c", "object": "text_completion", "created": 1758038918, "model": "meta-llama/Llama-3.1-8B",
             "choices": [], "usage": {"prompt_tokens": 7, "total_tokens": 7 + count, "completion_tokens": count,
                                      "prompt_tokens_details": None}}  # fmt: skip
    return sse(*tokens, usage)


VLLM = {
    "GET /version": answer_json({"version": "0.12.0"}),
    "GET /health": Answer([], kind="text/plain"),
    "GET /v1/models": answer_json(
        {"object": "list", "data": [{"id": "meta-llama/Llama-3.1-8B", "object": "model", "max_model_len": 8192}]}
    ),
    "GET /metrics": Answer(
        [
            (
                b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
                b'vllm:num_requests_waiting{engine="0",model_name="m"} 2.0\n'
                b'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
                b'vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+03\n'
                b'vllm:generation_tokens_total{engine="0",model_name="m"} 640.0\n'
                b'vllm:generation_tokens_total{engine="1",model_name="m"} 60.0\n'
            )
        ],
        kind="text/plain",
    ),
    "POST /v1/completions": Answer(vllm_events(), kind="text/event-stream"),
    "POST /v1/chat/completions": Answer(
        sse(
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop", "stop_reason": None}]},
            {"choices": [], "usage": {"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3}},
        ),
        kind="text/event-stream",
    ),
}


def ollama_lines(count=4):
    """/api/generate of Ollama: a line each token, the last with counts and nanoseconds."""
    import json

    lines = [
        {"model": "gemma4", "created_at": "2025-10-26T17:15:24.097767Z", "response": f" w{n}", "done": False}
        for n in range(count)
    ]
    lines.append({
        "model": "gemma4", "created_at": "2025-10-26T17:15:24.166576Z", "response": "", "done": True,
        "done_reason": "stop", "total_duration": 174560334, "load_duration": 101397084, "prompt_eval_count": 11,
        "prompt_eval_duration": 13074791, "eval_count": count, "eval_duration": 52479709,
    })  # fmt: skip
    return [json.dumps(line).encode() + b"\n" for line in lines]


OLLAMA = {
    "GET /api/version": answer_json({"version": "0.40.12"}),
    "GET /api/tags": answer_json({"models": [{"name": "gemma4:latest", "model": "gemma4:latest", "size": 3338801804}]}),
    "GET /api/ps": answer_json({"models": [{"name": "gemma4:latest", "size": 6654289920, "size_vram": 5333539264}]}),
    "POST /api/generate": Answer(ollama_lines(), kind="application/x-ndjson"),
}

LMSTUDIO = {
    "GET /v1/models": answer_json({"object": "list", "data": [{"id": "qwen3-8b"}, {"id": "nomic-embed"}]}),
    "GET /api/v0/models": answer_json(
        {
            "object": "list",
            "data": [
                {"id": "granite-3", "type": "llm", "state": "not-loaded"},
                {"id": "qwen3-8b", "type": "llm", "state": "loaded"},
                {"id": "nomic-embed", "type": "embeddings", "state": "loaded"},
            ],
        }
    ),
    "POST /v1/completions": Answer(vllm_events(), kind="text/event-stream"),
}

OPENAI = {
    "GET /v1/models": answer_json({"object": "list", "data": [{"id": "some-model"}]}),
    "POST /v1/completions": Answer(vllm_events(), kind="text/event-stream"),
}
