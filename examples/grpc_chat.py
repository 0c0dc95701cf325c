"""Ask a model over gRPC, through the same address as HTTP, and print the answer as it is made."""

import os
import sys
from urllib.parse import urlsplit

import grpc

from headrace.common.v1 import chat_pb2, generation_pb2
from headrace.gateway.v1 import gateway_pb2, gateway_pb2_grpc

address = urlsplit(os.environ.get("HEADRACE_URL", "http://127.0.0.1:8080/v1")).netloc
model = os.environ.get("HEADRACE_MODEL", "smollm2-135m-instruct")
question = " ".join(sys.argv[1:]) or "What is the capital of France? Answer in one short sentence."

message = chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[chat_pb2.ContentPart(text=question)])
generation = generation_pb2.Generation(
    model=model,
    prompt=chat_pb2.Prompt(chat=chat_pb2.ChatPrompt(messages=[message])),
    sampling=generation_pb2.Sampling(temperature=0, max_tokens=64),
)
with grpc.insecure_channel(address) as channel:
    answer = gateway_pb2_grpc.GatewayStub(channel).Generate(
        gateway_pb2.GenerateRequest(generation=generation),
        metadata=[("authorization", f"Bearer {os.environ['HEADRACE_API_KEY']}")],
        timeout=60,
    )
    for event in answer:
        print("".join(delta.text for delta in event.deltas), end="", flush=True)
        if event.HasField("summary"):
            print(f"\n[{event.disclosure.deployment}, {event.summary.usage.completion_tokens} tokens]")
