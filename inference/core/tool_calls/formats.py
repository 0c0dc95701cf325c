"""How families of models spell a tool call.

Every format is one shape, fixed to the character, as the models were trained on it:

    opening (before NAME after ARGUMENTS end) separator (before NAME after ARGUMENTS end) ... closing

The arguments are a JSON object. `opening` begins with `trigger`, which no other text of an answer may hold. A model is
held to the shape by its constraint, and its answer is read back by the same constants, so the two cannot disagree.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """See the module. `anywhere` says that text may stand before the calls; else they are the whole answer."""

    trigger: str
    opening: str
    before: str
    after: str
    end: str
    separator: str
    closing: str
    anywhere: bool = True
    parallel: bool = True
    # Some templates refuse ids of another length; 0: any will do.
    id_length: int = 0


# Nous Hermes and Qwen 2.5 and 3; also what a model is asked for that was never taught any.
HERMES = Format(
    trigger="<tool_call>",
    opening="<tool_call>",
    before='\n{"name": "',
    after='", "arguments": ',
    end="}\n",
    separator="</tool_call>\n<tool_call>",
    closing="</tool_call>",
)
# Llama 3.1 to 3.3: the answer is the call, and their template takes one call at a time.
LLAMA = Format(
    trigger='{"name": "',
    opening='{"name": "',
    before="",
    after='", "parameters": ',
    end="}",
    separator="",
    closing="",
    anywhere=False,
    parallel=False,
)
# Mistral up to the template of Mistral Small 3.1; a list behind a control token, with a space before it or without.
MISTRAL = Format(
    trigger="[TOOL_CALLS]",
    opening="[TOOL_CALLS][",
    before='{"name": "',
    after='", "arguments": ',
    end="}",
    separator=", ",
    closing="]",
    id_length=9,
)
MISTRAL_SPACED = Format(
    trigger="[TOOL_CALLS]",
    opening="[TOOL_CALLS] [",
    before='{"name": "',
    after='", "arguments": ',
    end="}",
    separator=", ",
    closing="]",
    id_length=9,
)
# Mistral's later templates: a call behind its own control tokens. The structural tags have no words for several in a
# row behind free text, where nothing marks the end of one.
MISTRAL_ARGS = Format(
    trigger="[TOOL_CALLS]",
    opening="[TOOL_CALLS]",
    before="",
    after="[ARGS]",
    end="",
    separator="",
    closing="",
    parallel=False,
    id_length=9,
)
# Control tokens that are part of a call's text: the one kind of them that an answer may hold.
MARKERS = frozenset({"[TOOL_CALLS]", "[ARGS]", "<tool_call>", "</tool_call>"})


@functools.lru_cache(maxsize=16)
def format_of(template: str) -> Format:
    """The format that a chat template writes past calls in; Hermes' where it knows none or another one."""
    if "[TOOL_CALLS]" in template and "[CALL_ID]" not in template:
        if "[ARGS]" in template:
            return MISTRAL_ARGS
        return MISTRAL_SPACED if "[TOOL_CALLS] [" in template else MISTRAL
    if '"parameters": ' in template and "<tool_call>" not in template and "tool_calls" in template:
        return LLAMA
    return HERMES
