"""What the dataflow test compares with: differences of reports, captured keys, lonely answers."""
import numpy as np

from relays import v1

HUGE = np.float32(1e6)


def key_of(entry, number):
    if "cell_key" in entry:
        return entry["cell_key"]
    if "format" in entry:
        return f"{entry['format']} layer {entry.get('layer', 0)}"
    return entry.get("name", number)


def leaves(value, path=""):
    """path -> leaf; lists of numbers are leaves, other lists go by name, not by place."""
    if isinstance(value, dict):
        parts = [(f"{path}.{name}" if path else name, part) for name, part in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [(f"{path}[{key_of(part, n)}]", part) for n, part in enumerate(value)]
        assert len({name for name, _ in parts}) == len(parts), f"{path} repeats a name"
    else:
        return {path: value}
    return {name: leaf for inner, part in parts for name, leaf in leaves(part, inner).items()}


def differences(before, after):
    old, new = leaves(before), leaves(after)
    return {path: (old.get(path), new.get(path)) for path in sorted(old.keys() | new.keys())
            if old.get(path) != new.get(path)}


def only(changed, *allowed):
    """No path of `changed` may lie outside the allowed beginnings."""
    others = {path: values for path, values in changed.items() if not path.startswith(allowed)}
    assert not others, f"unrelated parts changed: {dict(list(others.items())[:5])}"
    return changed


class Recordings:
    """The messages of every upload that a relay passes on, by capture id."""

    def __init__(self):
        self.uploads = {}

    def __call__(self, method, direction, data, call):
        if (method, direction) != ("Record", "request"):
            return
        message = v1("capture_pb2").RecordRequest.FromString(data)
        if message.HasField("header"):
            call["recorded"] = self.uploads[message.header.capture_id] = []
        call["recorded"].append(message)

    def keys(self, capture, layer):
        """[tokens, channels] of each prompt."""
        messages = self.uploads[capture]
        width = messages[0].header.num_kv_heads * messages[0].header.head_dim
        return [np.frombuffer(m.block.keys, "<f4").reshape(-1, width)
                for m in messages[1:] if m.HasField("block") and m.block.layer == layer]

    def key_magnitudes(self, capture):
        """Of each layer every channel's largest |K|, averaged over prompts: from its raw blocks where
        they were captured, else as the worker's statistics tell it."""
        header = self.uploads[capture][0].header
        sizes = {layer: magnitudes(self.keys(capture, layer)) for layer in header.layers}
        for message in self.uploads[capture][1:]:
            if message.HasField("statistics"):
                stats = message.statistics
                sizes[stats.layer] = np.array(stats.key_prompt_absmax_mean, np.float32)
        assert sorted(sizes) == sorted([*header.layers, *header.statistics_layers])
        return sizes


def magnitudes(keys):
    """The mean over prompts of each channel's largest magnitude."""
    magnitude = np.mean([np.abs(prompt).max(axis=0).astype(float) for prompt in keys], axis=0)
    return magnitude.astype(np.float32)


def outliers_among(magnitude):
    """By definition: at or above the 95th percentile."""
    threshold = np.float32(np.percentile(magnitude.astype(float), 95))
    return np.flatnonzero(magnitude >= threshold).tolist()


def outlier_channels(keys):
    return outliers_among(magnitudes(keys))


def set_key(block, channel, value=HUGE):
    """Changes one channel of a block's first token."""
    keys = np.frombuffer(block.keys, "<f4").copy()
    keys[channel] = value
    block.keys = keys.tobytes()


def lonely_refusal(cluster, experiment, report):
    """(cell, prompt, condition) of a refusal in the sweep whose answer no other cell gave: equal
    answers share a verdict. Harmless prompts of the built-in set are no trials of a flip."""
    cells = {cell["cell_key"]: cell for cell in report["cells"]}
    answers = {}
    for key, cell in cells.items():
        answers.setdefault(tuple(cell.get("token_ids", ())), []).append(key)
    rows = cluster.query("SELECT cell_key, prompt_id, cell_condition, stage FROM experiment_cells "
                         f"WHERE experiment_id = '{experiment}' ORDER BY position")
    refused = {prompt for key, prompt, _, stage in rows
               if stage == "baseline" and cells[key].get("verdict") == "VERDICT_LABEL_REFUSE"
               and not prompt.startswith("harmless-")}
    uses = {}
    for key, *_ in rows:
        uses[key] = uses.get(key, 0) + 1
    plans = {c["name"] for c in report["sweep"] if c["plan"] != report["target"]["plan"]}
    for key, prompt, condition, stage in rows:
        if (stage == "sweep" and condition in plans and uses[key] == 1 and prompt in refused
                and cells[key]["verdict"] == "VERDICT_LABEL_REFUSE"
                and len(answers[tuple(cells[key]["token_ids"])]) == 1):
            return key, prompt, condition
    raise AssertionError("every refusal of the sweep shares its answer with another cell")
