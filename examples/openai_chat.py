"""Ask a model with the official OpenAI client and print the answer as it is made."""

import os
import sys

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("HEADRACE_URL", "http://127.0.0.1:8080/v1"), api_key=os.environ["HEADRACE_API_KEY"]
)
model = os.environ.get("HEADRACE_MODEL", "smollm2-135m-instruct")
question = " ".join(sys.argv[1:]) or "What is the capital of France? Answer in one short sentence."

with client.chat.completions.with_streaming_response.create(
    model=model, messages=[{"role": "user", "content": question}], stream=True, temperature=0, max_tokens=64
) as response:
    for chunk in response.parse():
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    # headrace explain ID says more.
    print(f"\n[{response.headers['x-headrace-deployment']}, request {response.headers['x-request-id']}]")
