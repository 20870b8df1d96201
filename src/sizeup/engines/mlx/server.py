"""MLX's server (`mlx_lm.server`): OpenAI's API at port 8080, on Apple machines.

Source: mlx-lm, SERVER.md. It has no page that names it, so that it is found by its program or its address.
"""

from __future__ import annotations

import shutil

from sizeup.engines.launch import Launch, Server, free_port, local_url, start
from sizeup.engines.openai import OpenAI
from sizeup.engines.protocol import Endpoint, Found
from sizeup.errors import MissingPart

PROGRAM = "mlx_lm.server"


class Mlx(OpenAI):
    """mlx-lm's server."""

    name = "mlx"
    port = 8080

    def detect(self) -> tuple[Found, ...]:
        """`mlx_lm.server` on the path."""
        program = shutil.which(PROGRAM)
        return (Found(self.name, f"{PROGRAM} on the path", "", program),) if program else ()

    def launch(self, launch: Launch) -> Server:
        """`mlx_lm.server` with a folder of MLX weights or a Hub id that is in the cache."""
        program = shutil.which(PROGRAM)
        if not program:
            raise MissingPart("MLX's server is not installed here", hint="pip install mlx-lm on an Apple machine")
        port = launch.port or free_port(launch.host)
        endpoint = Endpoint(local_url(launch.host, port), self.name, launch.model)
        command = [program, "--model", launch.model, "--host", launch.host, "--port", str(port)]
        return start(command, endpoint, lambda: self.answers(endpoint.url), how=PROGRAM, seconds=launch.ready_seconds)
