"""Let a model call a function of this program, and have it answer with what the function returned."""

import json
import os
import sys

from openai import OpenAI


def get_weather(city: str, unit: str = "celsius") -> dict[str, str | int]:
    """What a weather service would say."""
    return {"city": city, "sky": "clear", unit: 21 if unit == "celsius" else 70}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The current weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 40},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city"],
            },
        },
    }
]

client = OpenAI(
    base_url=os.environ.get("HEADRACE_URL", "http://127.0.0.1:8080/v1"), api_key=os.environ["HEADRACE_API_KEY"]
)
model = os.environ.get("HEADRACE_MODEL", "smollm2-135m-instruct")
messages = [{"role": "user", "content": " ".join(sys.argv[1:]) or "What is the weather in Paris?"}]

# A large model may be left to choose ("auto"); this small one is told to call. Either way its arguments fit the schema.
asked = client.chat.completions.create(
    model=model, messages=messages, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, temperature=0
)
messages.append(asked.choices[0].message)
for call in asked.choices[0].message.tool_calls:
    print(f"{call.function.name}({call.function.arguments})")
    result = get_weather(**json.loads(call.function.arguments))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})

answer = client.chat.completions.create(
    model=model, messages=messages, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=64
)
print(answer.choices[0].message.content)
