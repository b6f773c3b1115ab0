"""The least that the matrix products of a run can cost: torch.mm over the model's own shapes.

    product_floor.py --model BUNDLE --threads N

Prints one JSON object: seconds per row of one block's maps and of the head, at each tile height, best of
several passes. Several blocks with weights of their own take turns, so that weights come from memory, as in
the model.
"""
import argparse
import json
import os
import time


def shapes(config):
    """(in, out) of one block's maps, with QKV and gate/up joined, and of the head."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads") or heads
    block = [
        (hidden, (heads + 2 * kv_heads) * head_dim),
        (heads * head_dim, hidden),
        (hidden, 2 * config["intermediate_size"]),
        (config["intermediate_size"], hidden),
    ]
    return block, (hidden, config["vocab_size"])


def time_products(blocks, rows, tiles, passes):
    """Seconds per row of one block's maps, `tiles` tiles of `rows` rows a map; the best time of each map."""
    import torch

    inputs = {w.shape[1]: torch.randn(rows, w.shape[1]) for w in blocks[0]}
    outputs = {w.shape[0]: torch.empty(rows, w.shape[0]) for w in blocks[0]}
    best = [float("inf")] * len(blocks[0])
    for _ in range(passes):
        for block in blocks:
            for i, weight in enumerate(block):
                started = time.perf_counter()
                for _ in range(tiles):
                    torch.mm(inputs[weight.shape[1]], weight.t(), out=outputs[weight.shape[0]])
                best[i] = min(best[i], time.perf_counter() - started)
    return sum(best) / (rows * tiles)


def measure(config, threads, heights=(64, 128, 256), batch_rows=256, blocks=8, passes=3):
    import torch

    torch.set_num_threads(threads)
    block, head = shapes(config)
    blocks = min(blocks, config["num_hidden_layers"])
    weights = [[torch.randn(out, into) for into, out in block] for _ in range(blocks)]
    head_weight = [[torch.randn(head[1], head[0])]]
    result = {}
    for rows in heights:
        tiles = max(1, batch_rows // rows)
        result[rows] = {
            "block_row_seconds": time_products(weights, rows, tiles, passes),
            "head_row_seconds": time_products(head_weight, rows, tiles, passes),
        }
    flops_block = 2 * sum(into * out for into, out in block)
    for entry in result.values():
        entry["block_gflops"] = flops_block / entry["block_row_seconds"] / 1e9
        entry["head_gflops"] = 2 * head[0] * head[1] / entry["head_row_seconds"] / 1e9
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    with open(os.path.join(args.model, "config.json")) as file:
        config = json.load(file)
    print(json.dumps(measure(config, args.threads)))


if __name__ == "__main__":
    main()
