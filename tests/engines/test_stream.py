"""Streams that break: each ends in a clear error, at once, with what had come before it; and what a token costs."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes import CUT, Answer, Fake, answer_json
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_formats import llamacpp_events, ollama_lines, vllm_events

from sizeup.engines.protocol import Ask, Call, Endpoint
from sizeup.engines.registry import ENGINES
from sizeup.engines.stream import arrivals
from sizeup.errors import NetworkError, NotFound

OPENAI = ENGINES["openai"]
CALL = Call("/v1/completions", b"{}")


def chunks(answer, engine=OPENAI, call=CALL, **options):
    """What arrives of one answer."""
    with Fake({f"POST {call.path}": answer}) as fake:
        return [a.chunk for a in arrivals(Endpoint(fake.url), [call], engine.read, **options)]


def test_a_body_without_chunks_is_read_to_its_end():
    assert len(chunks(Answer(vllm_events(), chunked=False))) == 5


def test_pieces_may_end_anywhere():
    whole = b"".join(vllm_events(8))
    assert len(chunks(Answer([whole[i : i + 7] for i in range(0, len(whole), 7)]))) == 9


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.booleans())
def test_any_cut_gives_the_same_tokens(sizes, chunked):
    whole, pieces, place = b"".join(ollama_lines(6)), [], 0
    for size in sizes:
        pieces.append(whole[place : place + size])
        place += size
    pieces.append(whole[place:])
    pieces = [piece for piece in pieces if piece]
    call = Call("/api/generate", b"{}", "lines")

    found = chunks(Answer(pieces, chunked=chunked), ENGINES["ollama"], call)

    assert [c.text for c in found] == [" w0", " w1", " w2", " w3", " w4", " w5", ""]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer([*vllm_events(3)[:2], CUT]), "after 2 tokens"),
        (Answer(vllm_events(3)[:2]), "ended in the middle"),
        (Answer([*vllm_events(3)[:2], CUT], chunked=False), "ended in the middle"),
        (Answer([*vllm_events(2)[:1], b"data: {broken\n\n"]), "isn't an event"),
        (Answer([b"data: <html>\n\n"]), "isn't an event"),
        (Answer([b'data: {"choices": 3}\n\n']), "isn't an event"),
        (Answer([b"<html>no stream here</html>"], kind="text/html"), "ended in the middle"),
        (Answer([b'data: {"error": {"message": "out of KV cache"}}\n\n']), "out of KV cache"),
        (answer_json({"error": {"message": "model crashed"}}, 500), "500.*model crashed"),
        (answer_json({"detail": "too many"}, 429), "429.*too many"),
        (Answer([CUT], status=200), "lost"),
    ],
)
def test_whatever_breaks_is_a_network_error(answer, said):
    with pytest.raises(NetworkError, match=said):
        chunks(answer)


def test_404_is_not_found():
    with pytest.raises(NotFound, match="404"):
        chunks(answer_json({"error": "model 'x' not found"}, 404))


def test_silence_ends():
    since = time.monotonic()
    with pytest.raises(NetworkError, match=r"said nothing for 0\.2 s"):
        chunks(Answer([vllm_events(2)[0], b":"], pause=2.0), silence=0.2)
    assert time.monotonic() - since < 1.5


def test_what_came_before_an_error_was_yielded():
    seen = []
    with Fake({"POST /v1/completions": Answer([*vllm_events(5)[:3], CUT])}) as fake:
        found = (arrival.chunk.text for arrival in arrivals(Endpoint(fake.url), [CALL], OPENAI.read))
        with pytest.raises(NetworkError):
            seen.extend(found)
    assert seen == [" w0", " w1", " w2"]


def raw_server(data):
    """A listener that answers one connection with bytes and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(data)
        connection.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 " + b"x" * 100_000,
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    ],
)
def test_garbage_instead_of_http(data):
    with pytest.raises(NetworkError):
        list(arrivals(Endpoint(raw_server(data)), [CALL], OPENAI.read))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_an_error_not_a_crash(data):
    with pytest.raises((NetworkError, NotFound)):
        list(arrivals(Endpoint(raw_server(b"HTTP/1.1 200 OK\r\n\r\n" + data)), [CALL], OPENAI.read))


def test_a_server_that_isnt_there():
    with pytest.raises(NetworkError, match="no answer"):
        list(OPENAI.stream(Endpoint("http://127.0.0.1:9"), [Ask("x")]))


def test_streams_are_told_apart():
    def numbered(body):
        return Answer(llamacpp_events(body["n_predict"]), pause=0.001)

    with Fake({"POST /completion": numbered}) as fake:
        asks = [Ask((1,), tokens=n) for n in (2, 5, 9)]
        seen = list(ENGINES["llama.cpp"].stream(Endpoint(fake.url), asks))

    counts = [sum(a.chunk.tokens for a in seen if a.stream == place) for place in range(3)]
    assert counts == [2, 5, 9]


def test_closing_hangs_up():
    with Fake({"POST /v1/completions": Answer(vllm_events(50), pause=0.02)}) as fake:
        stream = OPENAI.stream(Endpoint(fake.url), [Ask("x")])
        next(stream)
        stream.close()
        again = OPENAI.stream(Endpoint(fake.url), [Ask("x")])
        assert next(again).chunk.text == " w0"
        again.close()


FLOOD = Path(__file__).with_name("flood.py")
STREAMS, TOKENS = 16, 400


def test_a_token_costs_at_most_50_microseconds_at_16_streams():
    """Processor time of this thread for each token of 16 streams, written by another process as fast as it can."""
    with subprocess.Popen([sys.executable, str(FLOOD), str(TOKENS)], stdout=subprocess.PIPE, text=True) as server:
        try:
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            costs = [cost_of_a_token(url) for _ in range(5)]
        finally:
            server.kill()
    print(f"a token costs {min(costs) * 1e6:.1f} µs")
    assert min(costs) <= 50e-6


def cost_of_a_token(url):
    engine = ENGINES["llama.cpp"]
    asks = [Ask((1, 2, 3), tokens=TOKENS)] * STREAMS
    before, tokens = time.thread_time(), 0
    for arrival in engine.stream(Endpoint(url), asks):
        tokens += arrival.chunk.tokens
    assert tokens == STREAMS * TOKENS
    return (time.thread_time() - before) / tokens
