"""The limits of the contracts' fields, once, for everyone who holds requests to them: gateways, routers and nodes.

Fields are named as the contracts spell them. docs/contracts.md has the table, and the .proto files say the numbers
beside the fields: tests hold both to this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Range:
    """What a number may be; `above` says that the lowest itself may not."""

    low: float
    high: float
    above: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value is within; what is not a number never is."""
        return self.low < value <= self.high or (value == self.low and not self.above)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"{self.low:g}"
        return f"{low} or more" if self.high == math.inf else f"{low} to {self.high:g}"


# Numbers of headrace.common.v1.Sampling by field. Unset fields take the model's defaults.
SAMPLING: Final = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1, above=True),
    "top_k": Range(0, math.inf),
    "min_p": Range(0, 1),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repetition_penalty": Range(0, 10, above=True),
    "max_tokens": Range(1, math.inf),
    # 0 stands for 1.
    "n": Range(0, 32),
    "top_logprobs": Range(0, 20),
}
# Of each of logit_bias.
BIAS: Final = Range(-100, 100)
MAX_CHOICES: Final = int(SAMPLING["n"].high)
MAX_TOP_LOGPROBS: Final = int(SAMPLING["top_logprobs"].high)
MAX_STOPS: Final = 16
MAX_STOP_CHARACTERS: Final = 1024
MAX_MODEL_CHARACTERS: Final = 256
MAX_NAME_CHARACTERS: Final = 256
MAX_FUNCTION_NAME_CHARACTERS: Final = 64
FUNCTION_NAME: Final = f"^[a-zA-Z0-9_-]{{1,{MAX_FUNCTION_NAME_CHARACTERS}}}$"
MAX_MESSAGES: Final = 8192
MAX_TOOLS: Final = 128
# Levels of the JSON in a call's arguments and in a tool's result, and of a schema: whoever reads them does so with
# recursion.
MAX_JSON_DEPTH: Final = 64
MAX_SCHEMA_DEPTH: Final = 24


def table() -> list[tuple[str, str]]:
    """Every field, as "Message.field", with its limit in words."""
    rows = [(f"Sampling.{name}", str(limit)) for name, limit in SAMPLING.items()]
    return [
        *rows,
        ("Sampling.logit_bias", f"each {BIAS}"),
        ("Sampling.stop", f"at most {MAX_STOPS}, each of 1 to {MAX_STOP_CHARACTERS} characters"),
        ("Generation.model", f"1 to {MAX_MODEL_CHARACTERS} characters"),
        ("ChatPrompt.messages", f"1 to {MAX_MESSAGES}"),
        ("ChatPrompt.tools", f"at most {MAX_TOOLS}"),
        ("Message.name", f"at most {MAX_NAME_CHARACTERS} characters"),
        ("Tool.name", f"1 to {MAX_FUNCTION_NAME_CHARACTERS} letters, digits, _ and -"),
        ("Tool.parameters_json", f"at most {MAX_SCHEMA_DEPTH} levels"),
        ("ToolCall.arguments_json", f"at most {MAX_JSON_DEPTH} levels"),
    ]
