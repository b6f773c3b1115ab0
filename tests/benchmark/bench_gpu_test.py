"""The GPU benchmark's helpers: a model embedded in a larger shape computes what it computed; a comparison of two studies
sees what it must see; shares of a study's time."""
import os
import sys
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "scripts", "bench"))

try:
    import numpy as np
    import statsmodels  # noqa: F401
except ImportError as error:
    print(f"SKIPPED: {error}; run scripts/setup.sh --test")
    sys.exit(0)

import compare_studies
import embed_model
import measured_study
from embed_model import Embedder, Refused, Sizes, embedded_config
from source import expected_shapes
from tensors import Tensor, from_float32, to_float32

SMALL = dict(
    model_type="llama", num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=4, hidden_size=24,
    intermediate_size=32, vocab_size=40, rms_norm_eps=1e-5, rope_theta=100.0, tie_word_embeddings=True,
)
LARGE = dict(
    num_hidden_layers=3, num_attention_heads=12, num_key_value_heads=3, head_dim=8, hidden_size=56, intermediate_size=80,
    vocab_size=64,
)


def random_tensors(config, seed=3):
    random = np.random.default_rng(seed)
    make = lambda shape: (random.standard_normal(shape) * (0.5 if len(shape) > 1 else 1)).astype(np.float32)
    return {name: make(shape) for name, shape in expected_shapes(config).items()}


def norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x, theta):
    """[tokens, heads, head_dim]; channel i with channel i + head_dim/2, as Llama has it."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[0])[:, None] * theta ** (-np.arange(half) / half)[None, :]
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def logits(config, tensors, tokens):
    """A plain Llama in double."""
    w = {name: value.astype(np.float64) for name, value in tensors.items()}
    sizes, eps = Sizes.of(config), config["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][tokens]
    count = len(tokens)
    mask = np.triu(np.full((count, count), -np.inf), 1)
    for layer in range(sizes.layers):
        at = f"model.layers.{layer}."
        h = norm(x, w[at + "input_layernorm.weight"], eps)
        project = lambda letter, heads: (h @ w[f"{at}self_attn.{letter}_proj.weight"].T).reshape(count, heads, -1)
        q, k, v = project("q", sizes.heads), project("k", sizes.kv_heads), project("v", sizes.kv_heads)
        q, k = rotate(q, config["rope_theta"]), rotate(k, config["rope_theta"])
        group = sizes.heads // sizes.kv_heads
        out = np.empty_like(q)
        for head in range(sizes.heads):
            scores = q[:, head] @ k[:, head // group].T / np.sqrt(sizes.head_dim) + mask
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, head // group]
        x = x + out.reshape(count, -1) @ w[at + "self_attn.o_proj.weight"].T
        h = norm(x, w[at + "post_attention_layernorm.weight"], eps)
        gate = h @ w[at + "mlp.gate_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[at + "mlp.up_proj.weight"].T)) @ w[at + "mlp.down_proj.weight"].T
    tied = config["tie_word_embeddings"]
    head = w["model.embed_tokens.weight" if tied else "lm_head.weight"]
    return norm(x, w["model.norm.weight"], eps) @ head.T


class Embedding(unittest.TestCase):
    def setUp(self):
        self.small = random_tensors(SMALL)
        self.config, small, large = embedded_config(SMALL, LARGE)
        files = {n: Tensor("F32", v.shape, lambda v=v: v) for n, v in self.small.items()}
        embedder = Embedder(files, small, large, tied=True, dtype="F32")
        self.large = {n: embedder.make(n, shape) for n, shape in expected_shapes(self.config).items()}
        self.tokens = np.array([1, 7, 39, 0, 12, 12, 5])

    def difference(self):
        want = logits(SMALL, self.small, self.tokens)
        got = logits(self.config, self.large, self.tokens)
        return np.abs(got[:, : want.shape[1]] - want).max() / np.abs(want).max(), got[:, want.shape[1] :].max()

    def test_computes_what_the_small_model_computes_and_further_ids_never_win(self):
        relative, padded = self.difference()
        self.assertLess(relative, 1e-5)
        self.assertLess(padded, -50)

    def test_a_changed_value_is_seen(self):
        for name in ("self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj"):
            tensor = self.large[f"model.layers.1.{name}.weight"]
            kept = tensor[0, 0].copy()
            tensor[0, 0] += 0.1
            self.assertGreater(self.difference()[0], 1e-5, name)
            tensor[0, 0] = kept

    def test_what_multiplies_zeros_is_not_zero(self):
        for name in ("q_proj", "k_proj", "v_proj"):
            tensor = self.large[f"model.layers.0.self_attn.{name}.weight"]
            self.assertTrue((tensor[:, SMALL["hidden_size"] + 1 :] != 0).mean() > 0.99, name)

    def test_a_shape_that_is_too_small_is_refused(self):
        for key, value in (("hidden_size", 24), ("head_dim", 6), ("num_attention_heads", 6), ("vocab_size", 39)):
            with self.assertRaises(Refused, msg=key):
                config, small, large = embedded_config(SMALL, {**LARGE, key: value})
                embed_model.check_fits(small, large)

    def test_bfloat16_rounds_the_same_values(self):
        value = np.array([0.1, -3.0], dtype=np.float32)
        rounded = to_float32(from_float32(value, "BF16", "x"), "BF16")
        self.assertLess(np.abs(rounded - value).max(), 0.01)


def study(mode="FAILURE_MODE_DILUTION", prompts=100, flipped=(), broken=()):
    """A baseline and one sweep condition; `flipped` answers comply, `broken` ones break down."""
    label = lambda i: f"VERDICT_LABEL_{'COMPLY' if i in flipped else 'DEGENERATE' if i in broken else 'REFUSE'}"
    rows = {("set", f"p{i}"): (label(i), [i]) for i in range(prompts)}
    plain = {("set", f"p{i}"): ("VERDICT_LABEL_REFUSE", [i]) for i in range(prompts)}
    return mode, {"baseline": plain, "int4.asym.token": rows}, {"baseline": "baseline", "int4.asym.token": "sweep"}


class Comparing(unittest.TestCase):
    def differences(self, left, right):
        return compare_studies.compare(left, right)["differences"]

    def test_equal_studies_are_equal(self):
        self.assertEqual(self.differences(study(flipped=range(20)), study(flipped=range(20))), [])

    def test_a_few_answers_that_turn_both_ways_are_not_a_difference(self):
        self.assertEqual(self.differences(study(flipped=range(0, 10)), study(flipped=range(4, 14))), [])

    def test_twenty_refusals_lost_on_one_side_alone_are(self):
        found = self.differences(study(), study(flipped=range(20)))
        self.assertEqual(len(found), 1)
        self.assertIn("int4.asym.token: 20 prompts refused on the left alone", found[0])

    def test_answers_that_break_down_on_one_side_are(self):
        left = study(flipped=range(20))
        self.assertIn("broken", self.differences(left, study(broken=range(20)))[0])

    def test_another_failure_mode_is_unless_one_side_cannot_tell(self):
        other = study(mode="FAILURE_MODE_MIXED")
        self.assertIn("failure mode", self.differences(study(), other)[0])
        self.assertEqual(self.differences(study(), study(mode="FAILURE_MODE_UNDETERMINED")), [])

    def test_other_prompts_in_a_sweep_are(self):
        self.assertIn("other prompts", self.differences(study(prompts=100), study(prompts=99))[0])

    def test_nothing_in_common_cannot_be_compared(self):
        with self.assertRaises(compare_studies.CannotCompare):
            compare_studies.compare(study(), ("FAILURE_MODE_NONE", {"x": {}}, {"x": "sweep"}))


class Splitting(unittest.TestCase):
    def test_reads_stage_lines(self):
        self.assertEqual(measured_study.stage_of("3/14 layer screen   [==>  ] 12% 4/30 cells"), (3, "layer screen"))
        self.assertEqual(measured_study.stage_of("13/14 sensitivity floor [===>   ]  33% 6/9 cells"), (13, "sensitivity floor"))
        self.assertIsNone(measured_study.stage_of("14/14               \n".rstrip("\n")))
        self.assertIsNone(measured_study.stage_of("experiment exp-1"))

    def test_counts_between_two_times_in_proportion(self):
        zero = dict.fromkeys(measured_study.METRICS, 0.0)
        rows = [(0.0, zero), (10.0, {**zero, "step_seconds": 5.0, "steps": 20.0})]
        samples = measured_study.Samples("none")
        samples.rows, samples.gpu = rows, [(1.0, 1.0), (3.0, 0.5), (9.0, 0.0)]
        part = measured_study.between(samples, 0.0, 4.0)
        self.assertAlmostEqual(part["step_seconds"], 2.0)
        self.assertAlmostEqual(part["engine_share"], 0.5)
        self.assertAlmostEqual(part["gpu_share"], 0.75)


if __name__ == "__main__":
    unittest.main()
