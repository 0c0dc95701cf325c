"""The part of TensorRT-LLM's public API that the adapter uses, as its repository pins it against change.

Names alone, out of NVIDIA/TensorRT-LLM: the signatures are those that its own API stability tests compare with, below
tests/unittest/api_stability/, each file held to at the commit named here. KvCacheConfig's fields and those of the two
speculative configs are not listed there; they are from tensorrt_llm/llmapi/llm_args.py of the same generation, the one
whose speculative configs name their model `speculative_model`.
"""

from __future__ import annotations

COMMITS = {
    "references/llm.yaml": "ea35fd6735a7f08fa93289e07b953a2d8a37a2cf",
    "references_committed/llm.yaml": "029c15cbff10692cf7e9df552d92450dd92a3125",
    "references/guided_decoding_params.yaml": "ac14ba2218e96dbf62abab39659f218f1741145a",
    "references/request_output.yaml": "26eface3a13843581383c5049fd832577ed0c177",
    "references_committed/completion_output.yaml": "0c6a62a1d7ca643ceeaa3413b6833e164d324667",
    "references_committed/sampling_params.yaml": "020a73933022051ee7e9973a12dc83d9073c9476",
    "references/decoding_base_config.yaml": "e3bdd4caa29b6d1d0c6cff53a5f6495a0febb23e",
}


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


LLM_INIT = _names("""
    attn_backend batched_logits_processor context_parallel_size cuda_graph_config disable_overlap_scheduler dtype
    enable_chunked_prefill enable_lora guided_decoding_backend kv_cache_config load_format lora_config
    max_batch_size max_beam_width max_input_len max_num_tokens max_seq_len model moe_expert_parallel_size
    moe_tensor_parallel_size pipeline_parallel_size revision sampler_type skip_tokenizer_init speculative_config
    stream_interval tensor_parallel_size tokenizer tokenizer_mode tokenizer_revision trust_remote_code
""")
GENERATE_ASYNC = _names("""
    cache_salt disaggregated_params inputs kv_cache_retention_config lora_request prompt_adapter_request
    sampling_params scheduling_params streaming
""")
SAMPLING_PARAMS = _names("""
    add_special_tokens apply_batched_logits_processor bad bad_token_ids beam_search_diversity_rate best_of
    detokenize early_stopping embedding_bias end_id exclude_input_from_output frequency_penalty guided_decoding
    ignore_eos include_stop_str_in_output length_penalty logits_processor logprobs lookahead_config max_tokens min_p
    min_tokens n no_repeat_ngram_size pad_id presence_penalty prompt_logprobs repetition_penalty
    return_context_logits return_encoder_output return_generation_logits seed skip_special_tokens
    spaces_between_special_tokens stop stop_token_ids temperature top_k top_p top_p_decay top_p_min top_p_reset_ids
    truncate_prompt_tokens use_beam_search
""")
GUIDED_DECODING_PARAMS = _names("""
    grammar json json_object regex structural_tag
""")
KV_CACHE_CONFIG = _names("""
    dtype enable_block_reuse free_gpu_memory_fraction host_cache_size max_attention_window max_tokens
    sink_token_length
""")
NGRAM = _names("""
    is_keep_all is_public_pool is_use_oldest load_format max_concurrency max_draft_len max_matching_ngram_size
    speculative_model
""")
DRAFT_TARGET = _names("""
    load_format max_concurrency max_draft_len speculative_model
""")
REQUEST_OUTPUT = _names("""
    abort aborted finished outputs prompt_token_ids request_id
""")
COMPLETION_OUTPUT = _names("""
    finish_reason index logprobs stop_reason text token_ids
""")
FINISH_REASONS = _names("""
    cancelled length stop timeout
""")
