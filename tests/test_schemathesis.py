"""The OpenAPI document is true: a fuzzer that reads it finds no 5xx, no status and no shape that it does not have."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gatewayd.apikeys import add_key, new_key
from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import configuration, daemon

EXAMPLES = 25  # for each operation and phase
LIMIT_S = 400
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


async def test_the_running_daemon_is_as_its_openapi_document_says(tmp_path: Path) -> None:
    keys = tmp_path / "api-keys"
    secret, record = new_key("fuzz", ["admin"])
    add_key(keys, record)
    http = {
        "api_keys_file": str(keys),
        "trusted_networks": [],
        "metrics_networks": [],
        "access_log": False,
        "kannel": {"enabled": True},
        "alertmanager": {"groups": [{"name": "oncall", "to": ["+59898344484"]}]},
    }
    hook = {"name": "crm", "url": "http://127.0.0.1:9/none", "allow_private": True}
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0)], http=http, webhooks=[hook])
        async with daemon(tmp_path, config) as gateway:
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).parent / "schemathesis"), "run",
                f"http://{gateway.address}/api/v1/openapi.json",
                "--header", f"Authorization: Bearer {secret}",
                "--checks", ",".join(CHECKS),
                "--phases", "examples,coverage,fuzzing",
                "--max-examples", str(EXAMPLES),
                "--exclude-path", "/api/v1/events",  # it does not end
                "--generation-database", "none",
                "--seed", "1",
                "--request-timeout", "20",
                "--warnings", "off",
                "--suppress-health-check", "all",
                "--no-color",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=tmp_path,
            )  # fmt: skip
            try:
                async with asyncio.timeout(LIMIT_S):
                    output, _ = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            assert process.returncode == 0, output.decode(errors="replace")[-20_000:]
            assert not [line for line in gateway.log if "Traceback" in line or " ERROR " in line]
