"""The work that every engine is given, and the form in which it answers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from inference.adapters.llamacpp.settings import SMOLLM2
from inference.adapters.tokenizer import load_text_model
from inference.core.templating import Turn

STREAMS = (1, 16, 64)
# Lengths of the long prompts, and the tokens that are drawn after each: the last fills the model's context of 8,192.
LONG = (512, 2048, 4096, 8128)
AFTER_LONG = 64
# How often each number of streams is run; the best counts, for every engine. Short runs are the ones that a busy
# moment of the machine, or an engine that is still warming up, spoils.
_ROUNDS = {1: 5, 16: 2}
_SUBJECTS = ("the tides", "a lighthouse", "bread", "the printing press", "glaciers", "a violin", "maps", "the wheel")
_TASKS = (
    "Explain how {} came to be, step by step.",
    "Write a short story about {}.",
    "List ten facts about {}.",
    "What would life be like without {}?",
    "Describe {} to a child.",
    "Write a letter to a friend about {}.",
    "What is the history of {}?",
    "Compare {} with the moon.",
)


@dataclass(frozen=True)
class Work:
    """Prompts as token ids, answered greedily with exactly `tokens` tokens each, `streams` of them at once."""

    path: str
    prompts: list[list[int]]
    tokens: int
    threads: int
    streams: tuple[int, ...] = STREAMS
    long: tuple[int, ...] = LONG

    def take(self, count: int) -> list[list[int]]:
        """The prompts of a run with `count` streams."""
        return self.prompts[:count]

    def take_long(self, length: int) -> list[int]:
        """A prompt of this many tokens: all questions, one after the other, as often as it takes."""
        tokens = [token for prompt in self.prompts for token in prompt]
        return (tokens * (length // len(tokens) + 1))[:length]


@dataclass
class Result:
    """What one engine did. Times in seconds, memory in MB."""

    ready_at: float = 0.0
    tok_s: dict[str, float] = field(default_factory=dict)
    rss_mb_16: float = 0.0
    first_token_s: dict[str, float] = field(default_factory=dict)
    tok_s_after: dict[str, float] = field(default_factory=dict)


def make_work(tokens: int, threads: int, long: tuple[int, ...] = LONG) -> Work:
    """64 different questions to SmolLM2, in its own chat template, and the lengths of long prompts."""
    path = SMOLLM2.path()
    text = load_text_model(path)
    questions = [task.format(subject) for task in _TASKS for subject in _SUBJECTS]
    return Work(str(path), [list(text.encode_chat([Turn("user", q)])) for q in questions], tokens, threads, long=long)


def serve(run: Callable[[Work, Result], None]) -> None:
    """The main function of an engine's process: work from standard input, the result as the last line."""
    work = Work(**json.loads(sys.stdin.read()))
    result = Result()
    run(work, result)
    print(json.dumps(asdict(result)))


def measure(work: Work, result: Result, generate: Callable[[list[list[int]]], int]) -> None:
    """Run every number of streams; `generate` answers all prompts at once and returns the tokens that came."""
    for count in work.streams:
        prompts = work.take(count)
        if count == 16:
            # Starts the kernel's count of the highest resident size anew.
            Path("/proc/self/clear_refs").write_text("5")
        seconds = min(_timed(generate, prompts, count * work.tokens) for _ in range(_ROUNDS.get(count, 1)))
        result.tok_s[str(count)] = count * work.tokens / seconds
        if count == 16:
            result.rss_mb_16 = _peak_mb()


def measure_long(work: Work, result: Result, answer: Callable[[list[int], int], tuple[float, float]]) -> None:
    """Run every long prompt; `answer` gives the seconds to the first token, and then the tokens a second."""
    for length in work.long:
        first, rate = answer(work.take_long(length), AFTER_LONG)
        result.first_token_s[str(length)], result.tok_s_after[str(length)] = first, rate


def _timed(generate: Callable[[list[list[int]]], int], prompts: list[list[int]], expected: int) -> float:
    started = time.perf_counter()
    tokens = generate(prompts)
    seconds = time.perf_counter() - started
    if tokens != expected:
        raise RuntimeError(f"{tokens} tokens came, {expected} were asked for")
    return seconds


def _peak_mb() -> float:
    lines = Path(f"/proc/{psutil.Process().pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
