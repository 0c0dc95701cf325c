#!/bin/sh
# Ask a model with curl; the answer comes as server-sent events.
set -eu
question=${1:-What is the capital of France? Answer in one short sentence.}
curl --fail-with-body --silent --no-buffer "${HEADRACE_URL:-http://127.0.0.1:8080/v1}/chat/completions" \
  -H "authorization: Bearer $HEADRACE_API_KEY" -H 'content-type: application/json' \
  -d '{"model": "'"${HEADRACE_MODEL:-smollm2-135m-instruct}"'", "stream": true, "temperature": 0, "max_tokens": 64,
       "messages": [{"role": "user", "content": "'"$question"'"}]}'
