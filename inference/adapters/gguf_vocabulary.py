"""Turns the vocabulary in a GGUF file's metadata into one of the `tokenizers` library.

Two kinds exist: "gpt2" is byte-level BPE with its merges in the file; "llama" is SentencePiece's BPE, whose merges
follow from the tokens' scores. How text is cut before merging is named, not described, in the file; the patterns
below are those that the models' own tokenizer.json files hold under these names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE

# Token kinds of the format.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _gpt2() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _words(digits: str) -> Callable[[], Any]:
    def build() -> Any:
        split = pre_tokenizers.Split(Regex(_WORDS % digits), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    return build


_CUTS: dict[str, Callable[[], Any]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": _words("{1,3}"),
    "qwen2": _words(""),
}


def build_library_tokenizer(file: str, fields: dict[str, Any]) -> tuple[Library, bool]:
    """The tokenizer, and whether it is byte-level. Raises ValueError, naming the file, for kinds that are unknown."""
    kind = fields.get("tokenizer.ggml.model")
    _check(file, fields, kind)
    if kind == "gpt2":
        library = _byte_level(file, fields)
    elif kind == "llama":
        library = _sentencepiece(fields)
    else:
        raise ValueError(f"{file}: a vocabulary of kind {kind!r}; 'gpt2' and 'llama' are supported")
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields.get("tokenizer.ggml.token_type", [])
    library.add_special_tokens(
        [AddedToken(t, special=True) for t, k in zip(tokens, kinds, strict=False) if k == CONTROL]
    )
    # A file that says nothing of its tokens' kinds has ordinary ones alone.
    literal = [t for t, k in zip(tokens, kinds, strict=False) if k == USER_DEFINED]
    library.add_tokens([AddedToken(text, special=False, normalized=False) for text in literal])
    return library, kind == "gpt2"


def _check(file: str, fields: dict[str, Any], kind: Any) -> None:
    """Raise ValueError for metadata that is missing or contradicts itself."""
    tokens = fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f"{file}: tokenizer.ggml.tokens is missing: the file holds no vocabulary")
    needed = {"gpt2": ("merges",), "llama": ("scores", "token_type")}.get(kind, ())
    for name in (*needed, *(("token_type",) if "tokenizer.ggml.token_type" in fields else ())):
        values = fields.get(f"tokenizer.ggml.{name}")
        if not isinstance(values, list):
            raise ValueError(f"{file}: tokenizer.ggml.{name} is missing")
        if name != "merges" and len(values) != len(tokens):
            raise ValueError(f"{file}: tokenizer.ggml.{name} has {len(values)} entries for {len(tokens)} tokens")
    for name in ("bos", "eos", "unknown"):
        token = fields.get(f"tokenizer.ggml.{name}_token_id", 0)
        if not isinstance(token, int) or not 0 <= token < len(tokens):
            raise ValueError(f"{file}: tokenizer.ggml.{name}_token_id {token!r} is none of {len(tokens)} tokens")


def _byte_level(file: str, fields: dict[str, Any]) -> Library:
    cut = fields.get("tokenizer.ggml.pre", "gpt-2")
    if cut not in _CUTS:
        raise ValueError(f"{file}: text is cut by the rule {cut!r}; {', '.join(sorted(_CUTS))} are supported")
    vocabulary = {text: i for i, text in enumerate(fields["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    # Llama 3 takes a word that is a token as that token, whatever the merges would make of it.
    library = Library(BPE(vocab=vocabulary, merges=merges, ignore_merges=cut == "llama-bpe"))
    library.pre_tokenizer = _CUTS[cut]()
    if cut == "qwen2":
        library.normalizer = normalizers.NFC()
    return library


def _sentencepiece(fields: dict[str, Any]) -> Library:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    vocabulary = {text: i for i, text in enumerate(tokens)}
    unknown = tokens[fields.get("tokenizer.ggml.unknown_token_id", 0)]
    library = Library(
        BPE(vocab=vocabulary, merges=_merges(fields, vocabulary), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    space: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    if fields.get("tokenizer.ggml.add_space_prefix", True):
        space.insert(0, normalizers.Prepend("▁"))
    library.normalizer = normalizers.Sequence(space)
    return library


def _merges(fields: dict[str, Any], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """SentencePiece joins the pair whose joined token scores best; as ranks, that is the pairs by that score."""
    scores: list[float] = fields["tokenizer.ggml.scores"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    pairs = [
        (-scores[i], i, text[:at], text[at:])
        for text, i in vocabulary.items()
        if kinds[i] == NORMAL
        for at in range(1, len(text))
        if text[:at] in vocabulary and text[at:] in vocabulary
    ]
    pairs.sort(key=lambda pair: pair[:2])
    return [(left, right) for _, _, left, right in pairs]
