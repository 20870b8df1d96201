"""vLLM's server: OpenAI's API with prompts of token ids, `ignore_eos`, and Prometheus metrics.

Source: docs of vLLM 0.11 to 0.15 (serving/openai_compatible_server, design/metrics).
"""

from __future__ import annotations

import shutil

from sizeup.engines.http import get_text
from sizeup.engines.launch import Launch, Server, free_port, local_url, start
from sizeup.engines.metrics import totals, whole
from sizeup.engines.openai import OpenAI, probe
from sizeup.engines.protocol import Ask, Endpoint, Found, JsonObject, Stats
from sizeup.errors import MissingPart, SizeupError

PROGRAM = "vllm"


class Vllm(OpenAI):
    """vLLM; prefixes are cached unless the server was told otherwise."""

    name = "vllm"
    port = 8000
    takes_tokens = True
    reuses = True

    def detect(self) -> tuple[Found, ...]:
        """`vllm` on the path, and what listens at its usual port."""
        program = shutil.which(PROGRAM)
        there = (Found(self.name, "vllm on the path", "", program),) if program else ()
        return (*there, *self.listening())

    def answers(self, url: str) -> bool:
        """Whether it says a version at /version and has vLLM's metrics."""
        said = probe(url, "/version")
        if not isinstance(said, dict) or "version" not in said:
            return False
        try:
            return "vllm:" in get_text(url, "/metrics", seconds=1.0)
        except SizeupError:
            return False

    def launch(self, launch: Launch) -> Server:
        """`vllm serve`."""
        program = shutil.which(PROGRAM)
        if not program:
            raise MissingPart("vLLM is not installed here", hint="pip install vllm in an environment on the path")
        port = launch.port or free_port(launch.host)
        endpoint = Endpoint(local_url(launch.host, port), self.name, launch.model)
        length = launch.setting.context // launch.setting.parallel
        command = [program, "serve", launch.model, "--host", launch.host, "--port", str(port)]
        command += ["--max-model-len", str(length), "--max-num-seqs", str(launch.setting.parallel)]
        return start(command, endpoint, lambda: _healthy(endpoint.url), how="vllm serve", seconds=launch.ready_seconds)

    def stats(self, endpoint: Endpoint) -> Stats:
        """/metrics; the share of the cache was renamed with the engine's second version."""
        try:
            amounts = totals(get_text(endpoint.url, "/metrics", key=endpoint.key))
        except SizeupError:
            return Stats()
        used = amounts.get("vllm:kv_cache_usage_perc", amounts.get("vllm:gpu_cache_usage_perc"))
        return Stats(
            running=whole(amounts, "vllm:num_requests_running"),
            waiting=whole(amounts, "vllm:num_requests_waiting"),
            cache_used=used,
            prompt_tokens=whole(amounts, "vllm:prompt_tokens_total", "vllm:prompt_tokens"),
            generated=whole(amounts, "vllm:generation_tokens_total", "vllm:generation_tokens"),
        )

    def extras(self, ask: Ask) -> JsonObject:
        """Exactly so many tokens, whatever the model wants to end with."""
        return {"ignore_eos": True, "min_tokens": ask.tokens} if ask.exact else {}


def _healthy(url: str) -> bool:
    try:
        get_text(url, "/health", seconds=1.0)
    except SizeupError:
        return False
    return True
