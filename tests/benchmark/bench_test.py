"""The benchmark's own arithmetic, against figures worked out by hand."""
import argparse
import unittest

from bench_cpu import bar_of, split_layers
from plumbline_side import parse_metrics
from summary import floor_seconds, floor_work, summarize, table

PAGE = """# HELP plumb_worker_engine_seconds_total Where the engine's time went.
# TYPE plumb_worker_engine_seconds_total counter
plumb_worker_engine_seconds_total{part="matmul"} 1.5
plumb_worker_engine_seconds_total{part="quantize"} 0.25
plumb_worker_tokens_total{phase="decode"} 94
plumb_worker_step_duration_seconds_count 12
plumb_worker_step_duration_seconds_sum 2.5
plumb_worker_step_duration_seconds_bucket{le="0.1"} 3
"""


def side(seconds, generated, **extra):
    return {"seconds": seconds, "cpu_seconds": 2 * seconds, "generated": generated, "peak_rss_bytes": 2**30, **extra}


ENGINE = {"matmul": 6.0, "attention": 1.0, "quantize": 0.5, "other": 0.5, "step_seconds": 9.0}


class Parsing(unittest.TestCase):
    def test_reads_what_is_there_and_counts_the_absent_as_nothing(self):
        metrics = parse_metrics(PAGE)
        self.assertEqual((metrics["matmul"], metrics["quantize"], metrics["attention"]), (1.5, 0.25, 0))
        self.assertEqual((metrics["steps"], metrics["step_seconds"], metrics["decode_tokens"]), (12, 2.5, 94))


class Layers(unittest.TestCase):
    def test_every_layer_is_in_one_pair(self):
        for pairs in (1, 3, 7, 30):
            self.assertEqual(sorted(sum(split_layers(30, 30, pairs), [])), list(range(30)))

    def test_fewer_layers_are_spread_over_the_depth(self):
        self.assertEqual(split_layers(4, 30, 2), [[0, 15], [7, 22]])


class Bar(unittest.TestCase):
    def bar(self, layers=30, prompts=20, tokens=48, require=None):
        return bar_of(argparse.Namespace(layers=layers, prompts=prompts, tokens=tokens, require=require), 30)

    def test_the_full_size_must_reach_five_times(self):
        self.assertEqual(self.bar()[0], 5)
        self.assertEqual(self.bar(prompts=40)[0], 5)

    def test_a_smaller_size_has_no_bar_and_says_so(self):
        for smaller in ({"layers": 4}, {"prompts": 4}, {"tokens": 8}):
            bar, said = self.bar(**smaller)
            self.assertIsNone(bar)
            self.assertIn("no bar applies", said)

    def test_a_given_bar_holds_at_any_size(self):
        self.assertEqual(self.bar(tokens=8, require=3)[0], 3)
        self.assertEqual(self.bar(require=8)[0], 8)
        self.assertIsNone(self.bar(require=0)[0])


class Floor(unittest.TestCase):
    def test_blocks_below_the_quantized_layer_are_needed_once_a_prompt(self):
        # Four blocks, one prompt of 10 tokens. Layers 0 and 2: the deeper runs all 4 blocks, layer 0 shares
        # nothing: 4. Then layers 1 and 3: the deeper starts at block 2 (2 blocks), layer 1 runs 3.
        rows, head = floor_work([[0, 2], [1, 3]], [10], 4, decode_tokens=0, generated=5)
        self.assertEqual((rows, head), (10 * (4 + 4 + 2 + 3), 5))

    def test_a_decoded_token_passes_every_block(self):
        self.assertEqual(floor_work([[0]], [], 4, decode_tokens=6, generated=6), (24, 6))

    def test_the_fastest_tile_height_counts(self):
        floors = {"64": {"block_row_seconds": 0.1, "head_row_seconds": 1.0},
                  "128": {"block_row_seconds": 0.2, "head_row_seconds": 0.1}}
        self.assertEqual(floor_seconds((10, 5), floors), (2.5, 128))


class Summary(unittest.TestCase):
    def test_ratio_is_of_tokens_per_second_and_time_adds_up(self):
        pairs = [{"plumbline": side(10, 1000, engine=ENGINE), "transformers": side(40, 1000)},
                 {"plumbline": side(10, 1000, engine=ENGINE), "transformers": side(80, 1000)}]
        floors = {"64": {"block_row_seconds": 0.1, "head_row_seconds": 0.1}}
        summary = summarize(pairs, floors, (50, 50))
        self.assertAlmostEqual(summary["speedup"], 6)
        self.assertEqual([round(r, 9) for r in summary["speedup_of_pairs"]], [4, 8])
        self.assertAlmostEqual(sum(summary["engine_seconds"].values()), 20)
        self.assertAlmostEqual(summary["engine_seconds"]["between"], 2)
        self.assertAlmostEqual(summary["floor_seconds"], 10)
        self.assertIn("6.00x", table(summary, 4))


class FakeQuantize(unittest.TestCase):
    def test_three_bits_one_scale_for_the_tensor(self):
        try:
            import torch
            from transformers_side import fake_quantize
        except ImportError:
            self.skipTest("no torch; run scripts/setup.sh --test")
        # absmax 6, qmax 3: scale 2; 3 / 2 = 1.5 rounds to even.
        x = torch.tensor([[[6.0, -6.0, 3.0, 1.0]]])
        self.assertEqual(fake_quantize(x, 3).tolist(), [[[6.0, -6.0, 4.0, 0.0]]])


if __name__ == "__main__":
    unittest.main()
