"""A lean HTTP client for load: raw keep-alive connections, in a process of its own.

`python -m bench.load HOST PORT CONNECTIONS REQUESTS BATCH`: prints one JSON object. BATCH 0: form posts to /SendSMS;
else JSON arrays of that many messages to /api/v1/messages.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time


def _form(n: int) -> bytes:
    body = f"destination=%2B5989{n % 10_000_000:07}&message=Message+number+{n}&campaign=bench".encode()
    return _request("/SendSMS", "application/x-www-form-urlencoded", body)


def _batch(n: int, size: int) -> bytes:
    items = [{"to": f"+5989{(n * size + i) % 10_000_000:07}", "text": f"Message {n}/{i}"} for i in range(size)]
    return _request("/api/v1/messages", "application/json", json.dumps(items).encode())


def _request(path: str, kind: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _connection(
    host: str, port: int, requests: list[bytes], times: list[float], statuses: dict[int, int]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while requests:
        request = requests.pop()
        begun = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        times.append(time.perf_counter() - begun)
        statuses[status] = statuses.get(status, 0) + 1
    writer.close()


async def main(host: str, port: int, connections: int, requests: int, batch: int) -> None:
    work = [_batch(n, batch) if batch else _form(n) for n in range(requests)]
    times: list[float] = []
    statuses: dict[int, int] = {}
    begun = time.perf_counter()
    await asyncio.gather(*[_connection(host, port, work, times, statuses) for _ in range(connections)])
    took = time.perf_counter() - begun
    times.sort()
    print(
        json.dumps(
            {
                "requests": requests,
                "messages": requests * max(1, batch),
                "seconds": took,
                "per_second": requests * max(1, batch) / took,
                "p50_ms": 1000 * times[len(times) // 2],
                "p99_ms": 1000 * times[int(len(times) * 0.99)],
                "statuses": statuses,
            }
        )
    )


if __name__ == "__main__":
    host, port, *numbers = sys.argv[1:]
    asyncio.run(main(host, int(port), *map(int, numbers)))
