"""A server that writes tokens as llama-server does, one event a write, a token each millisecond on every stream.

`python flood.py TOKENS`; it says its port. One process for itself, so that its work isn't counted as the client's.
"""

import asyncio
import json
import sys


async def answer(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(
        next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    )
    await reader.readexactly(length)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    count = int(sys.argv[1])
    for number in range(count + 1):
        event = {"index": 0, "content": " word", "tokens": [number], "stop": False, "id_slot": 0,
                 "tokens_predicted": number + 1, "tokens_evaluated": 3}  # fmt: skip
        if number == count:
            event |= {"stop": True, "tokens": [], "content": "", "stop_type": "limit"}
        data = b"data: " + json.dumps(event).encode() + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
        await asyncio.sleep(0.001)
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
