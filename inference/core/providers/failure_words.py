"""The words in which providers say what went wrong, as tables. All in lower case."""

from __future__ import annotations

import re
from typing import Final

_SAMPLING: Final = "generation.sampling"
_CHAT: Final = "generation.prompt.chat"
# The providers' names of request fields, with what stands before a dot or a bracket, as the contract spells them.
FIELDS: Final = {
    "messages": f"{_CHAT}.messages",
    "contents": f"{_CHAT}.messages",
    "system": f"{_CHAT}.messages",
    "tools": f"{_CHAT}.tools",
    "tool_choice": f"{_CHAT}.tool_choice",
    "prompt": "generation.prompt",
    "temperature": f"{_SAMPLING}.temperature",
    "top_p": f"{_SAMPLING}.top_p",
    "top_k": f"{_SAMPLING}.top_k",
    "max_tokens": f"{_SAMPLING}.max_tokens",
    "max_completion_tokens": f"{_SAMPLING}.max_tokens",
    "stop": f"{_SAMPLING}.stop",
    "stop_sequences": f"{_SAMPLING}.stop",
    "n": f"{_SAMPLING}.n",
    "seed": f"{_SAMPLING}.seed",
    "logprobs": f"{_SAMPLING}.logprobs",
    "top_logprobs": f"{_SAMPLING}.top_logprobs",
    "logit_bias": f"{_SAMPLING}.logit_bias",
    "presence_penalty": f"{_SAMPLING}.presence_penalty",
    "frequency_penalty": f"{_SAMPLING}.frequency_penalty",
    "response_format": f"{_SAMPLING}.response_format",
    "output_config": f"{_SAMPLING}.response_format",
}
# An error that comes without a status of its own: in the stream, or in the body of a 200.
STATUS_OF_WORD: Final = {
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "badrequesterror": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "billing_error": 402,
    "not_found_error": 404,
    "not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "overloaded_error": 529,
    "timeout_error": 504,
    "deadline_exceeded": 504,
    "unavailable": 503,
}
CONTEXT: Final = re.compile(
    "context_length_exceeded|exceed_context_size|context length|context window|context size|context limit"
    "|prompt is too long|input is too long|too many tokens|maximum prompt length|model token limit"
    "|exceeds the maximum number of tokens|inputs` tokens"
)
FILTERED: Final = re.compile(
    "content_filter|content_policy|content policy|content management policy|responsibleaipolicyviolation"
    "|content filter|safety system|data_inspection_failed|prohibited_content"
)
# The node's own account: codes, types and reasons of OpenAI, Azure, Anthropic, Gemini, xAI, Groq, Mistral, DeepSeek,
# Moonshot, Together and of the proxies before them.
ACCOUNT_WORDS: Final = frozenset(
    {
        *("invalid_api_key", "api_key_invalid", "api_key_expired", "api_key_service_blocked", "incorrect_api_key"),
        *("authentication_error", "invalid_authentication", "invalid_authentication_error", "auth_error"),
        *("unauthorized", "unauthenticated", "access_denied", "access_terminated", "permission_error"),
        *("permission_denied", "failed_precondition", "service_disabled", "consumer_suspended", "consumer_invalid"),
        *("account_deactivated", "account_disabled", "account_suspended", "account_inactive", "user_suspended"),
        *("organization_disabled", "organization_restricted", "organization_deactivated", "workspace_disabled"),
        *("insufficient_quota", "insufficient_balance", "insufficient_funds", "insufficient_credits"),
        *("billing_error", "billing_hard_limit_reached", "billing_not_active", "billing_disabled"),
        *("exceeded_current_quota_error", "usage_limit_reached", "usage_limit_exceeded", "spend_limit_reached"),
    }
)
# How such messages begin. Further on a message may quote the caller, who must not be able to blame the account.
ACCOUNT_MESSAGES: Final = (
    *("api key", "api_key", "incorrect api key", "invalid api key", "invalid api-key", "invalid x-api-key"),
    *("no api key", "missing api key", "the api key", "this api key", "your api key", "you didn't provide an api key"),
    *("authentication", "invalid authentication", "invalid bearer token", "invalid token", "unauthorized"),
    *("invalid authorization", "missing authorization", "access denied due to"),
    *("your account", "this account", "the account", "account is ", "account has ", "account balance"),
    *("this organization", "your organization", "organization has been", "this organisation", "your organisation"),
    *("this workspace", "your workspace", "this project has been", "your team "),
    *("your credit balance", "insufficient balance", "insufficient credit", "insufficient quota", "insufficient fund"),
    *("billing", "usage limit", "you have reached your specified api usage limit", "you have reached your usage limit"),
    *("you have reached your api usage limit", "you have reached your monthly", "you have reached your spend"),
    *("you have exceeded your monthly", "quota exhausted", "monthly usage limit", "spending limit", "credit limit"),
)
