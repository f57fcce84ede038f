"""Tiny configs of decoder families, one for each way in which architectures differ that a trainer could trip over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 260
_SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 259}
_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_WIDE = {**_SIZES, "intermediate_size": 64}
_GROUPED = {**_WIDE, "num_key_value_heads": 2}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}


@dataclass(frozen=True)
class Family:
    """A family of decoders.

    Attributes:
        config: Name of its config class in transformers.
        trait: How it differs from the others.
        settings: Sizes that make it tiny, and what brings its trait out.
        layout: "branches" if a prompt's responses can share it in a row, "window" if they can within the window (of 8
            tokens here), "rows" if each needs a row of its own.
        refused: What doesn't work with it, by column of the table in docs/reference/families.md, with the beginning of
            the sentence that says so.
    """

    config: str
    trait: str
    settings: dict[str, Any] = field(default_factory=dict)
    layout: Literal["branches", "window", "rows"] = "branches"
    refused: dict[str, str] = field(default_factory=dict)

    def make_config(self) -> PreTrainedConfig:
        """The family's config."""
        return getattr(transformers, self.config)(**{**_SPECIAL, "initializer_range": 0.2, **self.settings})

    def make(self, seed: int = 0) -> PreTrainedModel:
        """A random model of the family, in eval mode."""
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(self.make_config(), dtype=torch.float32).eval()


FAMILIES = {
    "llama": Family("LlamaConfig", "tied embeddings", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen2": Family("Qwen2Config", "untied embeddings, biased projections", {**_GROUPED, "tie_word_embeddings": False}),
    "qwen3": Family("Qwen3Config", "normed queries and keys", {**_GROUPED, "head_dim": 8}),
    "mistral": Family("MistralConfig", "sliding window", {**_GROUPED, "sliding_window": 8}, layout="window"),
    "gemma": Family("GemmaConfig", "scaled embeddings", {**_GROUPED, "head_dim": 8}),
    "gemma2": Family(
        "Gemma2Config",
        "soft-capped logits and attention, alternating windows",
        {**_GROUPED, "head_dim": 8, "sliding_window": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0},
        layout="window",
    ),
    "gemma3": Family(
        "Gemma3TextConfig",
        "mostly windowed layers, two rotary bases",
        {**_GROUPED, "head_dim": 8, "sliding_window": 8, "num_hidden_layers": 3, "sliding_window_pattern": 3},
        layout="window",
    ),
    "cohere": Family("CohereConfig", "scaled logits, parallel blocks", {**_GROUPED, "logit_scale": 0.25}),
    "cohere2": Family(
        "Cohere2Config",
        "scaled logits, windowed layers without positions elsewhere",
        {**_GROUPED, "sliding_window": 8, "num_hidden_layers": 4},
        layout="window",
    ),
    "granite": Family(
        "GraniteConfig",
        "divided logits, scaled residuals",
        {**_GROUPED, "logits_scaling": 4.0, "residual_multiplier": 0.5},
    ),
    "phi": Family("PhiConfig", "biased LM head", _WIDE),
    "phi3": Family(
        "Phi3Config", "joined projections, sliding window", {**_GROUPED, "sliding_window": 8}, layout="window"
    ),
    "gpt2": Family("GPT2Config", "learned positions", {**_GPT, "n_positions": 128}),
    "opt": Family(
        "OPTConfig",
        "learned positions with an offset",
        {**_SIZES, "ffn_dim": 64, "word_embed_proj_dim": 16, "max_position_embeddings": 128},
    ),
    "gpt_bigcode": Family("GPTBigCodeConfig", "learned positions, one key head", {**_GPT, "n_positions": 128}),
    "gpt_neo": Family(
        "GPTNeoConfig",
        "local attention, learned positions",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "max_position_embeddings": 128,
        },
        layout="window",
    ),
    "gpt_neox": Family("GPTNeoXConfig", "partly rotary, parallel residuals", {**_WIDE, "rotary_pct": 0.5}),
    "gptj": Family("GPTJConfig", "interleaved rotary, biased LM head", {**_GPT, "rotary_dim": 4, "n_positions": 128}),
    "codegen": Family(
        "CodeGenConfig", "interleaved rotary, biased LM head", {**_GPT, "rotary_dim": 4, "n_positions": 128}
    ),
    "xglm": Family(
        "XGLMConfig",
        "sinusoidal positions",
        {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64, "max_position_embeddings": 300},
    ),
    "biogpt": Family("BioGptConfig", "learned positions, scaled embeddings", {**_WIDE, "max_position_embeddings": 128}),
    "openai-gpt": Family(
        "OpenAIGPTConfig", "learned positions, norms behind, no cache", {**_GPT, "n_positions": 128}, layout="rows"
    ),
    "ctrl": Family(
        "CTRLConfig",
        "sinusoidal positions, biased LM head",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "dff": 64, "n_positions": 128},
    ),
    "bloom": Family("BloomConfig", "ALiBi", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, layout="rows"),
    "mpt": Family(
        "MptConfig", "ALiBi", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}, layout="rows"
    ),
    "falcon": Family("FalconConfig", "ALiBi, one key head", {**_SIZES, "alibi": True}, layout="rows"),
    "falcon_rotary": Family(
        "FalconConfig",
        "rotary, new decoder architecture",
        {**_SIZES, "alibi": False, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "stablelm": Family("StableLmConfig", "partly rotary, layer norms", _GROUPED),
    "starcoder2": Family(
        "Starcoder2Config", "biases, sliding window", {**_GROUPED, "sliding_window": 8}, layout="window"
    ),
    "olmo2": Family("Olmo2Config", "norms behind the blocks", _GROUPED),
    "nemotron": Family("NemotronConfig", "squared ReLU, partly rotary", _GROUPED),
    "glm4": Family("Glm4Config", "sandwich norms, interleaved rotary", {**_GROUPED, "head_dim": 8}),
    "smollm3": Family("SmolLM3Config", "layers without positions", {**_GROUPED, "no_rope_layer_interval": 2}),
    "diffllama": Family("DiffLlamaConfig", "differential attention", _GROUPED),
    "nanochat": Family("NanoChatConfig", "capped logits", _GROUPED),
    "modernbert-decoder": Family(
        "ModernBertDecoderConfig",
        "a layer between backbone and LM head, local windows",
        {**_WIDE, "num_hidden_layers": 3, "local_attention": 8},
        layout="window",
    ),
    "llama4": Family(
        "Llama4TextConfig",
        "chunked attention, MoE",
        {
            **_GROUPED,
            "head_dim": 8,
            "intermediate_size_mlp": 64,
            "attention_chunk_size": 8,
            "num_local_experts": 2,
            "num_hidden_layers": 4,
        },
        layout="window",
    ),
    "mixtral": Family("MixtralConfig", "MoE", {**_GROUPED, "num_local_experts": 4, "router_jitter_noise": 0.1}),
    "phimoe": Family(
        "PhimoeConfig",
        "MoE whose router samples in train mode, biased LM head",
        {
            **_GROUPED,
            "num_local_experts": 4,
            "lm_head_bias": True,
            "router_jitter_noise": 0.1,
            "input_jitter_noise": 0.1,
        },
    ),
    "qwen2_moe": Family(
        "Qwen2MoeConfig",
        "MoE with a shared expert",
        {
            **_GROUPED,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    ),
    "qwen3_moe": Family(
        "Qwen3MoeConfig",
        "MoE",
        {**_GROUPED, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "olmoe": Family("OlmoeConfig", "MoE", {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    "gpt_oss": Family(
        "GptOssConfig",
        "MoE, attention sinks, windows",
        {**_GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
        layout="window",
    ),
    "granitemoe": Family(
        "GraniteMoeConfig",
        "MoE, divided logits",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "logits_scaling": 4.0},
    ),
    "jetmoe": Family(
        "JetMoeConfig",
        "MoE in attention, too",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "kv_channels": 8,
            "intermediate_size": 64,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "dbrx": Family(
        "DbrxConfig",
        "MoE, joined projections",
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 128,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
        },
    ),
    "deepseek_v2": Family(
        "DeepseekV2Config",
        "latent attention, MoE",
        {
            **_WIDE,
            "num_key_value_heads": 4,
            "kv_lora_rank": 8,
            "q_lora_rank": None,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "moe_intermediate_size": 32,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
        },
    ),
    "deepseek_v3": Family(
        "DeepseekV3Config",
        "latent attention, MoE with biased choice",
        {
            **_WIDE,
            "num_key_value_heads": 4,
            "kv_lora_rank": 8,
            "q_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "moe_intermediate_size": 32,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
        },
    ),
    "mamba": Family(
        "MambaConfig",
        "state space",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        layout="rows",
        refused={"8-bit": "MambaForCausalLM doesn't run on quantised weights, some of which it reads without"},
    ),
    "mamba2": Family(
        "Mamba2Config",
        "state space with heads",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
        },
        layout="rows",
    ),
    "falcon_mamba": Family(
        "FalconMambaConfig",
        "state space, normed inputs",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
        layout="rows",
    ),
    "rwkv": Family(
        "RwkvConfig",
        "linear recurrence",
        {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 128},
        layout="rows",
    ),
    "recurrent_gemma": Family(
        "RecurrentGemmaConfig",
        "gated recurrence and local attention, soft-capped logits",
        {
            **_GROUPED,
            "num_hidden_layers": 3,
            "lru_width": 32,
            "attention_window_size": 8,
            "num_key_value_heads": 1,
            "logits_soft_cap": 2.0,
        },
        layout="rows",
    ),
    "jamba": Family(
        "JambaConfig",
        "state space and attention, MoE",
        {
            **_GROUPED,
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        layout="rows",
    ),
    "bamba": Family(
        "BambaConfig",
        "state space and attention",
        {
            **_GROUPED,
            "attn_layer_indices": [1],
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
        },
        layout="rows",
    ),
    "zamba2": Family(
        "Zamba2Config",
        "state space with a shared attention block",
        {
            **_GROUPED,
            "num_hidden_layers": 4,
            "mamba_d_state": 8,
            "mamba_headdim": 8,
            "n_mamba_heads": 8,
            "mamba_ngroups": 1,
            "chunk_size": 8,
            "num_mem_blocks": 1,
            "use_mamba_kernels": False,
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        },
        layout="rows",
        refused={"merge": "The adapter changes model.layers.1.shared_transformer.self_attn.q_proj and model.layers.3"},
    ),
    "falcon_h1": Family(
        "FalconH1Config",
        "state space beside attention, multiplied logits",
        {
            **_GROUPED,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
            "lm_head_multiplier": 0.25,
        },
        layout="rows",
    ),
    "granitemoehybrid": Family(
        "GraniteMoeHybridConfig",
        "state space and attention, MoE, divided logits",
        {
            **_GROUPED,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 32,
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
            "logits_scaling": 4.0,
        },
        layout="rows",
    ),
    "nemotron_h": Family(
        "NemotronHConfig",
        "state space, attention and MLP layers",
        {
            **_GROUPED,
            "hybrid_override_pattern": "M*-M",
            "num_hidden_layers": 4,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "head_dim": 8,
        },
        layout="rows",
    ),
    "lfm2": Family(
        "Lfm2Config",
        "short convolutions and attention",
        {**_GROUPED, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
        layout="rows",
    ),
    "qwen3_next": Family(
        "Qwen3NextConfig",
        "gated delta rule and attention, MoE",
        {
            **_GROUPED,
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
        layout="rows",
    ),
    "minimax": Family(
        "MiniMaxConfig",
        "lightning attention and attention, MoE",
        {
            **_GROUPED,
            "head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
            "block_size": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        layout="rows",
    ),
}
