"""The load: callers that ask one question after the other through the edge, and note what they get."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec

from ops.drills.requests import RequestRecord, RequestResult
from ops.drills.spec import Load

_RETRYABLE: Final = (408, 429, 500, 502, 503, 504)
_DATA: Final = b"data: "


class Callers:
    """Asks until told to stop. `asked` grows; `losses` counts answers that were lost, severed or wrong."""

    def __init__(self, load: Load, url: str, key: str, bystanders_key: str = "") -> None:
        self._load = load
        self._url = f"{url}/chat/completions"
        self._keys = {False: key, True: bystanders_key}
        self._stopping = False
        self._began = time.monotonic()
        self.records: list[RequestRecord] = []
        self.references: list[str] = []
        self.losses = 0

    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask while inside. Leaving lets every answer under way come to its end."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            self._began = time.monotonic()
            tasks = [asyncio.create_task(self._caller(http, i)) for i in range(self._load.streams)]
            tasks += [asyncio.create_task(self._caller(http, i, bystander=True)) for i in range(self._load.bystanders)]
            try:
                yield
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise
            finally:
                self._stopping = True
                await asyncio.gather(*tasks, return_exceptions=True)

    async def learn(self) -> str:
        """Ask each question once, undisturbed, for the answers to compare with; what went wrong, or nothing."""
        async with aiohttp.ClientSession() as http:
            found = [await self._ask(http, RequestRecord(i, self.now())) for i in range(len(self._load.prompts))]
        self.references = [one.text for one in found]
        return next((one.error or "an empty answer" for one in found if not (one.finished and one.text)), "")

    def result(self, record: RequestRecord) -> RequestResult:
        """How a question ended."""
        return record.result(self.references[record.prompt])

    async def _caller(self, http: aiohttp.ClientSession, number: int, *, bystander: bool = False) -> None:
        # Spread over half of the time before the fault. Callers that begin together go on asking together, answer after
        # answer, and what a drill sees would hang on whether the fault comes just before they all ask or just after.
        await asyncio.sleep(0.5 * self._load.before_s * number / self._load.streams)
        prompt = number
        while not self._stopping:
            record = await self._ask(http, RequestRecord(prompt % len(self._load.prompts), self.now(), bystander))
            self.records.append(record)
            if self.result(record) is not RequestResult.ANSWERED:
                self.losses += 1
                # A caller that is turned away at once does not ask again a thousand times a second.
                await asyncio.sleep(0.05)
            prompt += 1
            if self._load.pause_s:
                await asyncio.sleep(self._load.pause_s)

    async def _ask(self, http: aiohttp.ClientSession, record: RequestRecord) -> RequestRecord:
        while True:
            wait_s = await self._try(http, record)
            if wait_s is None or record.text or record.client_retries >= self._load.client_retries:
                record.ended = self.now()
                return record
            record.client_retries += 1
            record.error = ""
            await asyncio.sleep(wait_s)

    async def _try(self, http: aiohttp.ClientSession, record: RequestRecord) -> float | None:
        """One try; how long to wait before another would make sense, None where none would."""
        body: dict[str, Any] = {
            "model": self._load.model,
            "stream": not self._load.whole,
            "temperature": 0,
            "messages": [{"role": "user", "content": self._load.prompts[record.prompt]}],
        }
        if self._load.max_tokens is not None:
            body["max_tokens"] = self._load.max_tokens
        try:
            async with asyncio.timeout(self._load.patience_s):
                async with http.post(self._url, json=body, headers=self._headers(record)) as response:
                    record.status = response.status
                    if response.status != 200:
                        return _refused(record, response, await response.read())
                    if self._load.whole:
                        _take_whole(record, await response.read(), self.now())
                    else:
                        await self._read(record, response)
        except TimeoutError:
            record.error = "the caller's patience is over"
        except (aiohttp.ClientError, OSError) as error:
            record.error = type(error).__name__
            return 0.1
        return None

    def _headers(self, record: RequestRecord) -> dict[str, str]:
        return {"authorization": f"Bearer {self._keys[record.bystander]}", "x-headrace-disclose": "true"}

    async def _read(self, record: RequestRecord, response: aiohttp.ClientResponse) -> None:
        finish = False
        async for line in response.content:
            if not line.startswith(_DATA):
                continue
            data = line[len(_DATA) :].strip()
            if data == b"[DONE]":
                # A finish reason and the last line: only both make an answer.
                record.finished = finish
                return
            event = msgspec.json.decode(data)
            if "headrace" in event:
                record.disclose(event["headrace"])
            if "error" in event:
                record.error = str(event["error"].get("code") or event["error"].get("message"))
                return
            for choice in event.get("choices") or ():
                if text := choice["delta"].get("content"):
                    record.gain(text, self.now())
                finish = finish or bool(choice.get("finish_reason"))


def _take_whole(record: RequestRecord, body: bytes, now: float) -> None:
    """An answer that came as one body."""
    answer = msgspec.json.decode(body)
    record.disclose(answer.get("headrace") or {})
    choice = answer["choices"][0]
    record.gain(choice["message"].get("content") or "", now)
    record.finished = bool(choice.get("finish_reason"))


def _refused(record: RequestRecord, response: aiohttp.ClientResponse, body: bytes) -> float | None:
    record.error = f"HTTP {response.status}"
    try:
        decoded = msgspec.json.decode(body)
        record.error = str(decoded["error"].get("code") or record.error)
        record.disclose(decoded.get("headrace") or {})
    except (msgspec.DecodeError, KeyError, AttributeError, TypeError):
        # Not the mesh's own words: Envoy's, for one.
        record.attempts = 0
    if response.status not in _RETRYABLE:
        return None
    return float(response.headers.get("retry-after-ms", "100")) / 1e3
