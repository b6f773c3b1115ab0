"""Runs kernel_bench and torch's products of the same shapes in one go; one table, raw JSON."""

import argparse
import json
import statistics
import subprocess

import torch


def torch_microseconds(rows, inputs, outputs):
    """torch.mm on random bf16, with weights in turn so that none stays in the L2."""
    copies = max(1, (300 << 20) // (2 * inputs * outputs))
    x = torch.randn(rows, inputs, device="cuda", dtype=torch.bfloat16)
    weights = [
        torch.randn(outputs, inputs, device="cuda", dtype=torch.bfloat16) * 0.02
        for _ in range(copies)
    ]
    y = torch.empty(rows, outputs, device="cuda", dtype=torch.bfloat16)
    launches = 4 * copies
    for weight in weights:
        torch.mm(x, weight.t(), out=y)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            torch.mm(x, weights[i % copies].t(), out=y)
    times = []
    for _ in range(8):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1000 / launches)
    return statistics.median(times[1:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", help="the gpu_kernel_bench binary")
    parser.add_argument("--json", help="where to write the raw numbers")
    args = parser.parse_args()
    result = json.loads(subprocess.run([args.program], check=True, capture_output=True).stdout)
    rivals = {}
    for row in result["rows"]:
        shape = (row.get("rows"), row.get("in"), row.get("out"))
        if "product" in row:
            if shape not in rivals:
                rivals[shape] = torch_microseconds(*shape)
            row["torch_us"] = round(rivals[shape], 2)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
    print(result["device"])
    for row in result["rows"]:
        extra = f"  torch {row['torch_us']:9.2f}  {row['algorithm']}" if "product" in row else ""
        print(f"{row['name']:36} {row['us']:9.2f} us {row['GB_per_s']:8.0f} GB/s{extra}")


if __name__ == "__main__":
    main()
