"""The test model's recipe on a tiny model: the seed decides every byte of a CPU run's adapter."""
import argparse
import os
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts" / "testbed"))
try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    print(f"SKIPPED: {error}; run scripts/setup.sh --test")
    sys.exit(77)
import lora  # noqa: E402
import train_adapter  # noqa: E402

STEPS, BATCH = 2, 4
# Prompts and answers of unequal lengths: padding takes part.
PAIRS = [([1, 5 + i, 9], [20 + i] * (1 + i % 3)) for i in range(STEPS * BATCH)]


def untouched():
    torch.manual_seed(11)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64)).eval()


def saved(model, folder):
    path = os.path.join(folder, "adapter.safetensors")
    lora.save(model, path, {"scale": "2.0"})
    return pathlib.Path(path).read_bytes()


def adapter(folder, seed, pairs=PAIRS):
    """The adapter's file after two steps from the same untouched model."""
    model = untouched()
    train_adapter.fit(model, pairs, argparse.Namespace(
        seed=seed, rank=2, scale=2.0, lr=1e-2, epochs=1, batch=BATCH, device="cpu"))
    return saved(model, folder)


class Reproducible(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def test_two_runs_from_one_seed_give_equal_bytes(self):
        first = adapter(self.folder, seed=3)
        torch.randn(5)  # what else a process draws takes no part
        self.assertEqual(first, adapter(self.folder, seed=3))

    def test_another_seed_or_pair_gives_others(self):
        first = adapter(self.folder, seed=3)
        self.assertNotEqual(first, adapter(self.folder, seed=4))
        self.assertNotEqual(first, adapter(self.folder, seed=3, pairs=PAIRS[:-1] + [([1, 5], [30])]))

    def test_two_steps_move_the_adapter(self):
        start = untouched()
        lora.attach(start, 2, 2.0, 3)
        self.assertNotEqual(saved(start, self.folder), adapter(self.folder, seed=3))


if __name__ == "__main__":
    unittest.main()
