"""Shapes of models that the benchmarks build, in the names of Hugging Face's config.json."""

LLAMA_3_1_8B = dict(
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    hidden_size=4096,
    intermediate_size=14336,
    vocab_size=128256,
)
