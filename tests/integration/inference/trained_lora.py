"""LoRA adapters trained with PEFT on SmolLM2 itself, a few steps each, and what PEFT's merged model computes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers as hf

from inference.adapters.model_files import SMOLLM2
from inference.adapters.tokenizer import load_text_model
from inference.adapters.torch.loading import load_checkpoint

PROMPTS = ("Bread is", "About the sea:")


@dataclass(frozen=True)
class Lesson:
    """How an adapter is taught to go on, whatever the prompt."""

    name: str
    text: str
    settings: dict[str, Any]


LESSONS = (
    Lesson(
        "parrot",
        " known to the parrot, who sings at noon.",
        {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    ),
    Lesson(
        "clerk",
        " a matter for form 27; please wait in line.",
        {"r": 8, "lora_alpha": 8, "use_rslora": True, "target_modules": "all-linear"},
    ),
)
_STEPS, _RATE = 6, 6e-3


def base_model() -> Any:
    """SmolLM2 in transformers, float32, with the weights of the file that nodes serve."""
    checkpoint = load_checkpoint(SMOLLM2.path())
    c = checkpoint.config
    config = hf.LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden,
        intermediate_size=c.intermediate,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.context_length,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tied,
    )
    with torch.device("meta"):
        model = hf.LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    weights = {f"model.{name}": weight.dense().float() for name, weight in checkpoint.weights.items()}
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    model.tie_weights()
    return model.eval()


def train(base: Any, lesson: Lesson, folder: Path) -> Any:
    """Teach `lesson` to a copy of `base` and save the adapter as PEFT does. Returns the model with it merged in."""
    text = load_text_model(SMOLLM2.path())
    # Two threads that spin for each other take ten times as long where anything else runs.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**lesson.settings))
    rows = []
    for prompt in PROMPTS:
        known, new = (text.tokenizer.encode(part, first=False) for part in (prompt, lesson.text))
        rows.append((known + new, [-100] * len(known) + new))
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=_RATE)
    for step in range(_STEPS):
        tokens, wanted = rows[step % len(rows)]
        model(input_ids=torch.tensor([tokens]), labels=torch.tensor([wanted])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return model.merge_and_unload().eval()
