"""From raw pairs to the figures that are shown."""
from plumbline_side import PARTS


def floor_work(pairs_layers, prompt_tokens, layers_of_model, decode_tokens, generated):
    """Rows that the products must run at least: (rows times blocks, rows of the head).

    A condition that quantizes layer l shares the blocks below l of a prompt with the others, so they are
    needed once a prompt, up to the deepest layer asked for so far.
    """
    block_rows = decode_tokens * layers_of_model
    reached = 0
    for layers in pairs_layers:
        deepest = max(layers)
        block_rows += sum(prompt_tokens) * (layers_of_model - min(reached, deepest))
        reached = max(reached, deepest)
        others = sorted(layers)[:-1]
        block_rows += sum(prompt_tokens) * sum(layers_of_model - layer for layer in others)
    return block_rows, generated


def floor_seconds(work, floors):
    """(seconds, tile height) of the tile height that is fastest."""
    block_rows, head_rows = work
    return min(
        (block_rows * f["block_row_seconds"] + head_rows * f["head_row_seconds"], int(rows))
        for rows, f in floors.items())


def total(pairs, side, key):
    return sum(pair[side][key] for pair in pairs)


def summarize(pairs, floors, work):
    ours, theirs = ({
        "seconds": total(pairs, side, "seconds"),
        "cpu_seconds": total(pairs, side, "cpu_seconds"),
        "generated": total(pairs, side, "generated"),
        "peak_rss_bytes": max(pair[side]["peak_rss_bytes"] for pair in pairs),
    } for side in ("plumbline", "transformers"))
    for side in (ours, theirs):
        side["tokens_per_second"] = side["generated"] / side["seconds"]
    engine = {part: sum(pair["plumbline"]["engine"][part] for pair in pairs) for part in PARTS}
    steps = sum(pair["plumbline"]["engine"]["step_seconds"] for pair in pairs)
    engine["between"] = max(0.0, steps - sum(engine.values()))
    engine["outside"] = max(0.0, ours["seconds"] - steps)
    seconds, rows = floor_seconds(work, floors)
    ratios = [p["plumbline"]["generated"] / p["plumbline"]["seconds"]
              / (p["transformers"]["generated"] / p["transformers"]["seconds"]) for p in pairs]
    return {
        "plumbline": ours, "transformers": theirs, "engine_seconds": engine,
        "speedup": ours["tokens_per_second"] / theirs["tokens_per_second"],
        "speedup_of_pairs": ratios,
        "cpu_speedup": theirs["cpu_seconds"] / theirs["generated"] * ours["generated"] / ours["cpu_seconds"],
        "floor_seconds": seconds, "floor_tile_rows": rows,
    }


def table(summary, batch):
    ours, theirs = summary["plumbline"], summary["transformers"]
    ratio = lambda key: f"{theirs[key] / ours[key]:.2f}x"
    mib = lambda side: f"{side['peak_rss_bytes'] / 2**20:.0f}"
    rows = [
        ("", "plumbline", f"transformers, batch {batch}", "ratio"),
        ("wall, s", f"{ours['seconds']:.1f}", f"{theirs['seconds']:.1f}", ratio("seconds")),
        ("processor time, s", f"{ours['cpu_seconds']:.1f}", f"{theirs['cpu_seconds']:.1f}", ratio("cpu_seconds")),
        ("tokens generated", str(ours["generated"]), str(theirs["generated"]), ""),
        ("tokens/s", f"{ours['tokens_per_second']:.0f}", f"{theirs['tokens_per_second']:.0f}",
         f"{summary['speedup']:.2f}x"),
        ("peak memory, MiB", mib(ours), mib(theirs), ratio("peak_rss_bytes")),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join([row[0].ljust(widths[0])] + [row[i].rjust(widths[i]) for i in (1, 2, 3)]) for row in rows]
    lines += ["", "tokens/s ratio of each pair: " + ", ".join(f"{r:.2f}x" for r in summary["speedup_of_pairs"]), ""]
    return "\n".join(lines + time_lines(summary))


def time_lines(summary):
    wall, floor = summary["plumbline"]["seconds"], summary["floor_seconds"]
    names = {
        "matmul": "matrix products, norms, activations", "attention": "attention, RoPE of queries",
        "quantize": "cache writes, quantizers", "other": "embeddings, sampling, reuse of prompts",
        "between": "scheduling and results", "outside": "tokenizing, gRPC, the client's start"}
    lines = ["where plumbline's time goes" + " " * 14 + "s   share   per floor"]
    for key, name in names.items():
        seconds = summary["engine_seconds"][key]
        lines.append(f"  {name:36} {seconds:7.2f}  {seconds / wall:5.1%}   {seconds / floor:8.2f}x")
    lines.append(f"  {'all of it':36} {wall:7.2f}  100.0%   {wall / floor:8.2f}x")
    lines.append(f"  {'floor: the products alone':36} {floor:7.2f}  {floor / wall:5.1%}"
                 f"   torch.mm, {summary['floor_tile_rows']} rows a product")
    return lines
