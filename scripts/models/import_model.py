#!/usr/bin/env python3
"""Turns a Hugging Face folder or a GGUF file into a Plumbline model bundle.

Needs numpy, jinja2 and, for GGUF files, gguf; neither torch nor transformers. Progress goes to
standard error; the last line of standard output is one JSON object:
{"status": "ok", "bundle", "name", "model_digest", ...} or {"status": "error", "error"}."""

import argparse
import json
import os
import signal
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import bundle
import chat_compiler
import lora
from earlier_bundle import trained_on_of_replaced
from errors import ImportRefused
from gguf_source import read_gguf
from hf_source import read_folder
from source import check_config, check_tensors, check_vocabulary

EXAMPLES = """examples:
  import_model.py ~/models/Llama-3.1-8B-Instruct --out models/llama31 --dtype bf16
  import_model.py SmolLM2-135M-Instruct.Q4_1.gguf --out models/smol
  import_model.py SmolLM2-135M-Instruct.Q4_1.gguf --lora adapter.safetensors --out models/refusing

exit codes: 0 written, 2 the source or the arguments are refused (nothing is written), 1 anything else
"""


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a Hugging Face folder, a .gguf file of the llama or qwen2 architecture, or a bundle",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the bundle folder to create")
    parser.add_argument(
        "--name", metavar="N", help="name in the manifest (default: the source's own)"
    )
    parser.add_argument(
        "--lora",
        metavar="ADAPTER",
        help="merge this adapter: a safetensors file whose metadata has 'scale', or a PEFT folder",
    )
    parser.add_argument(
        "--dtype",
        choices=("keep", "f32", "bf16", "f16"),
        default="keep",
        help="stored weights; keep = as in the source, f32 for GGUF and merged weights (default: keep)",
    )
    parser.add_argument(
        "--chat-date",
        default=chat_compiler.DEFAULT_DATE,
        metavar="YYYY-MM-DD",
        help="what templates that print today's date get, so that prompts stay the same (default: %(default)s)",
    )
    parser.add_argument(
        "--no-chat",
        action="store_true",
        help="ignore the chat template; the bundle then takes raw prompts only",
    )
    parser.add_argument(
        "--trained-on",
        metavar="FILE",
        help="text hashes, one a line, of prompts that the model was trained on: studies leave them out; "
        "joins the list of a bundle that is the source, or of the same source and replaced",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle at --out")
    return parser.parse_args(argv)


def import_model(args):
    trained_on = set(bundle.read_trained_on(args.trained_on)) if args.trained_on else set()
    progress(f"reading {args.source}")
    source, tensors = read_checked(args.source)
    progress(
        f"{source.config['model_type']}: {source.config['num_hidden_layers']} layers, {len(tensors)} tensors"
    )
    adapted = 0
    if args.lora:
        tensors, adapted = lora.merge(tensors, args.lora)
        source.origin += f" + lora {os.path.basename(os.path.abspath(args.lora))}"
        progress(f"merging an adapter into {adapted} weights")
    trained_on.update(source.trained_on)
    if args.force:
        trained_on.update(trained_on_of_replaced(args.out, source, progress))
    if args.name:
        source.name = args.name
    chat = compile_chat(source, args)
    manifest = bundle.write_bundle(args.out, source, tensors, chat, args.dtype, args.force, sorted(trained_on))
    progress(f"wrote {args.out} (model_digest {manifest['model_digest'][:12]})")
    return {
        "status": "ok",
        "bundle": args.out,
        "name": manifest["name"],
        "model_digest": manifest["model_digest"],
        "tensors": len(tensors),
        "adapted": adapted,
        "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
        "chat": chat is not None,
        "trained_on": len(trained_on),
    }


def read_checked(path):
    """Nothing that a file holds ends in anything but a refusal that names it."""
    label = os.path.basename(os.path.abspath(path))
    try:
        source = read_source(path)
        check_config(source.config)
        check_vocabulary(source)
        return source, check_tensors(source)
    except ImportRefused as refusal:
        named = label in str(refusal)
        raise refusal if named else ImportRefused(f"{label}: {refusal}") from refusal
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ImportRefused(
            f"{label} does not hold what a model holds ({type(error).__name__}: {error}); is it damaged?"
        ) from error


def read_source(path):
    if os.path.isdir(path):
        return read_folder(path)
    if not os.path.exists(path):
        raise ImportRefused(f"no model at {path}")
    if not path.endswith(".gguf"):
        raise ImportRefused(f"{path} must be a Hugging Face folder or a .gguf file")
    return read_gguf(path)


def compile_chat(source, args):
    if args.no_chat:
        return None
    if not source.chat_template and source.chat:
        progress("chat format: the bundle's own")
        return source.chat
    if not source.chat_template:
        progress(
            "no chat template: the bundle takes raw prompts only, as base models do"
            " (plumb generate --raw, plumb diagnose --raw)"
        )
        return None
    try:
        chat = chat_compiler.compile_template(
            source.chat_template, source.special_tokens, source.adds_bos, args.chat_date
        )
    except ImportRefused as refusal:
        raise ImportRefused(f"{refusal}; --no-chat imports the model for raw prompts") from refusal
    progress(
        f"chat format: {len(chat['joints'])} joints, equal to the template on {chat['checked_conversations']} random conversations"
    )
    return chat


def progress(text):
    print(text, file=sys.stderr, flush=True)


def main(argv):
    args = parse_arguments(argv)
    try:
        result, code = import_model(args), 0
    except ImportRefused as refusal:
        result, code = {"status": "error", "error": str(refusal)}, 2
    except KeyboardInterrupt:
        result, code = {"status": "error", "error": "interrupted; nothing was written"}, 1
    except OSError as error:
        text = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        result, code = {"status": "error", "error": text}, 1
    except Exception as error:
        traceback.print_exc()
        result, code = {"status": "error", "error": f"{type(error).__name__}: {error}"}, 1
    if code:
        progress(f"error: {result['error']}")
    print(json.dumps(result, ensure_ascii=False))
    return code


if __name__ == "__main__":
    # So that a caller which stops this program leaves no temporary folder behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
