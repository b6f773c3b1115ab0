"""What an earlier import left in a bundle beside weights and tokenizer: the chat format, compiled from a template
that is not there any more, and the list of prompts that the model was trained on."""

import json
import os
from dataclasses import dataclass, field

import bundle
from errors import ImportRefused


@dataclass
class Earlier:
    name: str
    origin: str
    license: str
    chat: dict | None = None
    trained_on: list = field(default_factory=list)


def read_earlier(folder):
    """None where `folder` is no bundle; refused where it lists what it does not hold."""
    path = os.path.join(folder, "manifest.json")
    if not os.path.isfile(path):
        return None
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
        if manifest["format"] != bundle.FORMAT:
            return None
        files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
        earlier = Earlier(manifest["name"], manifest["source"], manifest["license"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ImportRefused(f"manifest.json is not a bundle's manifest ({error!r})") from error
    if bundle.CHAT_FORMAT in files:
        with open(_listed(folder, bundle.CHAT_FORMAT, files), encoding="utf-8") as file:
            earlier.chat = json.load(file)
    if bundle.TRAINED_ON in files:
        earlier.trained_on = bundle.read_trained_on(_listed(folder, bundle.TRAINED_ON, files))
    return earlier


def trained_on_of_replaced(out, source, say):
    """The list of a bundle at `out` that is of the same source; `say` is told of one that is not kept. A damaged bundle
    is one to be replaced, so that it is no reason to refuse."""
    try:
        earlier = read_earlier(out)
    except (ImportRefused, OSError) as error:
        say(f"the bundle that is replaced does not tell what it was trained on ({error}): --trained-on gives the list")
        return []
    if earlier is None or not earlier.trained_on:
        return []
    if earlier.origin != source.origin:
        say(
            f"the bundle that is replaced was made of another source ({earlier.origin}): "
            "its list of trained-on prompts is not kept"
        )
        return []
    return earlier.trained_on


def _listed(folder, name, files):
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        raise ImportRefused(f"{name} is missing in {folder}, and its manifest.json lists it")
    if bundle.sha256_of(path) != files[name]:
        raise ImportRefused(f"{name} in {folder} is not what its manifest.json lists; is it damaged?")
    return path
