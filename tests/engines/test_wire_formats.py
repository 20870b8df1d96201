"""Contracts with servers: which one answers, what it serves, its load, and each token of its stream."""

import pytest
from fakes import Answer, Fake, answer_json
from wire_formats import LLAMACPP, LMSTUDIO, OLLAMA, OPENAI, VLLM

from sizeup.engines.protocol import Ask, Endpoint, Message
from sizeup.engines.registry import ENGINES, attach, is_address
from sizeup.errors import BadInput, NetworkError, NotFound


@pytest.mark.parametrize(
    ("routes", "engine", "model"),
    [
        (LLAMACPP, "llama.cpp", "tiny.gguf"),
        (VLLM, "vllm", "meta-llama/Llama-3.1-8B"),
        (OLLAMA, "ollama", "gemma4:latest"),
        (LMSTUDIO, "lmstudio", "qwen3-8b"),
        (OPENAI, "openai", "some-model"),
    ],
)
def test_a_server_is_known_by_its_answers(routes, engine, model):
    with Fake(routes) as fake:
        kind, endpoint = attach(fake.url)

    assert (kind.name, endpoint.engine, endpoint.model) == (engine, engine, model)


def told(engine, routes, ask):
    """All chunks of one ask, and what the server was asked."""
    with Fake(routes) as fake:
        endpoint = Endpoint(fake.url, engine, "m", key="secret")
        chunks = [arrival.chunk for arrival in ENGINES[engine].stream(endpoint, [ask])]
        return chunks, fake.asked[-1]


def test_llamacpp_tells_tokens_and_its_own_clock():
    chunks, (route, body, headers) = told("llama.cpp", LLAMACPP, Ask((1, 2, 3), tokens=4, exact=True))

    assert route == "POST /completion"
    assert body["prompt"] == [1, 2, 3]
    assert body["n_predict"] == 4
    assert body["ignore_eos"] is True
    assert body["cache_prompt"] is False
    assert headers["Authorization"] == "Bearer secret"
    assert [c.text for c in chunks] == [" w0", " w1", " w2", " w3", ""]
    assert [c.tokens for c in chunks] == [1, 1, 1, 1, 0]
    last = chunks[-1]
    assert (last.finish, last.prompt_tokens, last.generated) == ("limit", 3, 4)
    # this version doesn't count the first token among those decoded
    assert (last.timings.decode_tokens, last.timings.decode_seconds) == (3, 0.03)
    assert (last.timings.prompt_tokens, last.timings.prompt_seconds) == (3, 0.0125)


def test_vllm_takes_ids_and_tells_counts_last():
    chunks, (route, body, _) = told("vllm", VLLM, Ask((5, 6), tokens=4, exact=True))

    assert route == "POST /v1/completions"
    assert body["prompt"] == [5, 6]
    assert body["max_tokens"] == body["min_tokens"] == 4
    assert body["ignore_eos"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert [c.tokens for c in chunks] == [1, 1, 1, 1, 0]
    assert chunks[3].finish == "length"
    assert (chunks[-1].prompt_tokens, chunks[-1].generated) == (7, 4)


def test_a_chat_keeps_reasoning_and_answer():
    chunks, (route, body, _) = told("vllm", VLLM, Ask(messages=(Message("user", "Hi"),)))

    assert route == "POST /v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert "".join(c.text for c in chunks) == "HmHello"


def test_ollama_speaks_lines_and_nanoseconds():
    chunks, (route, body, _) = told("ollama", OLLAMA, Ask("Why?", tokens=4))

    assert route == "POST /api/generate"
    assert body["raw"] is True
    assert body["options"]["num_predict"] == 4
    assert [c.tokens for c in chunks] == [1, 1, 1, 1, 0]
    last = chunks[-1]
    assert (last.finish, last.prompt_tokens, last.generated) == ("stop", 11, 4)
    assert last.timings.prompt_seconds == pytest.approx(0.013074791)
    assert last.timings.decode_seconds == pytest.approx(0.052479709)


def test_load_is_read_from_metrics():
    with Fake(LLAMACPP) as fake:
        stats = ENGINES["llama.cpp"].stats(Endpoint(fake.url))
        assert (stats.running, stats.waiting, stats.prompt_tokens, stats.generated) == (2, 1, 2048, 128)
    with Fake(VLLM) as fake:
        stats = ENGINES["vllm"].stats(Endpoint(fake.url))
        assert (stats.running, stats.waiting, stats.cache_used) == (3, 2, 0.25)
        assert (stats.prompt_tokens, stats.generated) == (1500, 700)
    with Fake(OLLAMA) as fake:
        stats = ENGINES["ollama"].stats(Endpoint(fake.url))
        assert (stats.gpu_bytes, stats.memory_bytes) == (5333539264, 6654289920 - 5333539264)


def test_metrics_that_are_off_are_unknown_not_zero():
    with Fake({"GET /props": LLAMACPP["GET /props"]}) as fake:
        assert ENGINES["llama.cpp"].stats(Endpoint(fake.url)).running is None


def test_a_model_that_isnt_served_is_refused():
    with Fake(OPENAI) as fake, pytest.raises(NotFound, match="no model 'other'"):
        attach(fake.url, model="other")


def test_nothing_at_an_address_is_a_network_error():
    with pytest.raises(NetworkError, match="no answer"):
        attach("http://127.0.0.1:9")


def test_a_page_that_is_no_api_is_a_network_error():
    page = Answer([b"<html>hello</html>"], kind="text/html")
    with Fake({"GET /v1/models": page}) as fake, pytest.raises(NetworkError, match="isn't JSON"):
        attach(fake.url)


def test_a_key_is_asked_for():
    refusal = answer_json({"error": {"message": "bad key"}}, 401)
    with Fake({"GET /v1/models": refusal}) as fake, pytest.raises(NetworkError, match="bad key") as caught:
        attach(fake.url)
    assert "SIZEUP_API_KEY" in caught.value.hint


@pytest.mark.parametrize("text", ["http://h:1", "https://x", "localhost:8080", "127.0.0.1:80", "[::1]:8080"])
def test_addresses(text):
    assert is_address(text)


@pytest.mark.parametrize("text", ["qwen3:8b", "hf.co/a/b:Q4_K_M", "a/b", "model.gguf", "1.5:7", "x:1"])
def test_models_are_no_addresses(text):
    assert not is_address(text)


@pytest.mark.parametrize("text", ["http://", "ftp://x", "http://x:port", "http://x:99999"])
def test_bad_addresses(text):
    with pytest.raises(BadInput):
        attach(text)


def test_a_key_is_never_shown():
    assert "secret" not in repr(Endpoint("http://x", key="secret"))
