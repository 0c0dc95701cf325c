"""A model's text side, read from its files: a Hugging Face folder or a GGUF file.

The work is done by the `tokenizers` library; a GGUF file's vocabulary is handed to it in memory. Importing
transformers would do the same and take several seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library

from inference.adapters.gguf_header import read_metadata
from inference.adapters.gguf_vocabulary import CONTROL, build_library_tokenizer
from inference.core.templating import ChatTemplate
from inference.core.text import TextModel
from inference.core.tool_calls.formats import MARKERS


def _byte_of_character() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte, backwards (its `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_of_character()


class VocabularyTokenizer:
    """See inference.core.text.Tokenizer.

    `rest` encodes what does not stand first, where that makes a difference. `added` holds tokens whose text is
    literal. `byte_level` says how the vocabulary spells bytes: GPT-2's stand-ins, or SentencePiece's "<0x0A>" and "▁".
    """

    def __init__(
        self,
        library: Library,
        *,
        control: Mapping[str, int],
        added: Mapping[int, str],
        prefix: tuple[int, ...],
        byte_level: bool,
        rest: Library | None = None,
    ) -> None:
        self._first, self._rest = library, rest or library
        for one in (self._first, self._rest):
            # Text is text: control tokens are set by the template alone, never found in a string.
            one.encode_special_tokens = True
            one.no_truncation()
            one.no_padding()
        self.control = dict(control)
        self.prefix = prefix
        self.vocab_size: int = library.get_vocab_size(with_added_tokens=True)
        self._added = dict(added)
        self._spell = _spell_byte_level if byte_level else _spell_sentencepiece
        self._bytes: list[bytes | None] = [None] * self.vocab_size
        for text, token in self.control.items():
            self._bytes[token] = text.encode() if text in MARKERS else b""

    def encode(self, text: str, *, first: bool) -> list[int]:
        """See Tokenizer."""
        library = self._first if first else self._rest
        ids: list[int] = library.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        """See Tokenizer."""
        if token >= self.vocab_size:
            return b""
        known = self._bytes[token]
        if known is None:
            literal = self._added.get(token)
            known = literal.encode() if literal is not None else self._spell(self._first.id_to_token(token) or "")
            self._bytes[token] = known
        return known


def load_text_model(path: Path) -> TextModel:
    """Read the text side of a model folder or a GGUF file. Raises ValueError or OSError, naming the file."""
    return _from_folder(path) if path.is_dir() else _from_gguf(path)


def _from_gguf(path: Path) -> TextModel:
    fields = read_metadata(path, ("tokenizer.",))
    library, byte_level = build_library_tokenizer(path.name, fields)
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields.get("tokenizer.ggml.token_type", [])
    control = {tokens[i]: i for i, kind in enumerate(kinds) if kind == CONTROL}
    names = {
        f"{name}_token": tokens[fields[key]]
        for name in ("bos", "eos")
        if (key := f"tokenizer.ggml.{name}_token_id") in fields
    }
    # llama.cpp's default: SentencePiece vocabularies want a beginning-of-text token unless told otherwise.
    wants_bos = fields.get("tokenizer.ggml.add_bos_token", not byte_level)
    prefix = (int(fields["tokenizer.ggml.bos_token_id"]),) if wants_bos and "bos_token" in names else ()
    tokenizer = VocabularyTokenizer(
        library,
        control=control,
        added={i: token.content for i, token in library.get_added_tokens_decoder().items()},
        prefix=prefix,
        byte_level=byte_level,
    )
    sources = (fields.get(key) for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"))
    return TextModel(tokenizer, *(ChatTemplate(source, control, names) if source else None for source in sources))


def _from_folder(folder: Path) -> TextModel:
    document = _read_json(folder / "tokenizer.json")
    settings = _read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    library = Library.from_str(json.dumps(document))
    added = library.get_added_tokens_decoder()
    control = {token.content: i for i, token in added.items() if token.special}
    with_prefix, plain = library.encode("a").ids, library.encode("a", add_special_tokens=False).ids
    tokenizer = VocabularyTokenizer(
        library,
        control=control,
        added={i: token.content for i, token in added.items()},
        prefix=tuple(with_prefix[: len(with_prefix) - len(plain)]) if with_prefix[-len(plain) :] == plain else (),
        byte_level='"ByteLevel"' in json.dumps([document.get("pre_tokenizer"), document.get("decoder")]),
        rest=_without_leading_space(document),
    )
    names = {name: _token_text(settings[name]) for name in ("bos_token", "eos_token") if settings.get(name)}
    sources = _templates_of(folder, settings)
    return TextModel(tokenizer, *(ChatTemplate(source, control, names) if source else None for source in sources))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: not JSON: {error}") from error
    return document


def _without_leading_space(document: dict[str, Any]) -> Library | None:
    """The tokenizer for text that follows a control token, if this vocabulary puts a space before the first only."""
    step = document.get("pre_tokenizer") or {}
    if step.get("type") != "Metaspace" or step.get("prepend_scheme") != "first":
        return None
    changed = document | {"pre_tokenizer": step | {"prepend_scheme": "never"}}
    return Library.from_str(json.dumps(changed))


def _templates_of(folder: Path, settings: dict[str, Any]) -> tuple[str | None, str | None]:
    """The template, and the one for conversations with tools where there is another."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8"), None
    source = settings.get("chat_template")
    if isinstance(source, list):
        named = {entry["name"]: entry["template"] for entry in source}
        return named.get("default"), named.get("tool_use")
    return source, None


def _token_text(value: str | dict[str, Any]) -> str:
    return value if isinstance(value, str) else str(value["content"])


def _spell_byte_level(piece: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in piece)


def _spell_sentencepiece(piece: str) -> bytes:
    if len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()
