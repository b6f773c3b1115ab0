"""Imports tiny models and checks the bundles; bad sources are refused with the value and leave nothing.

import_model_test.py [BUNDLE_CHECK]     the C++ program that opens a bundle as a worker does"""

import contextlib
import errno
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import numpy as np
from safetensors.numpy import load_file, save_file

import import_fixtures as fixtures

import bundle  # noqa: E402  (scripts/models, put on the path by import_fixtures)
import import_model  # noqa: E402
import tensors as tensor_files  # noqa: E402

BUNDLE_CHECK = sys.argv.pop(1) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else None


class ImportCase(unittest.TestCase):
    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.work)
        self.source, self.out = self.work / "tiny", self.work / "out" / "bundle"

    def run_import(self, *arguments, source=None):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
            code = import_model.main(
                [str(source or self.source), "--out", str(self.out), *map(str, arguments)]
            )
        return code, json.loads(output.getvalue().splitlines()[-1])

    def imported(self, *arguments, source=None):
        code, result = self.run_import(*arguments, source=source)
        self.assertEqual(code, 0, result)
        return result

    def checked(self):
        """What C++ reads from the bundle."""
        if BUNDLE_CHECK is None:
            self.skipTest("no bundle_check program was given")
        done = subprocess.run([BUNDLE_CHECK, self.out], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def assert_refused(self, *parts, arguments=(), source=None):
        code, result = self.run_import(*arguments, source=source)
        self.assertEqual((code, result["status"]), (2, "error"), result)
        for part in parts:
            self.assertIn(part, result["error"])
        self.assert_nothing_left()

    def assert_nothing_left(self):
        if self.out.parent.exists():
            self.assertEqual([p.name for p in self.out.parent.iterdir()], [])


class GoodSources(ImportCase):
    def test_folder_keeps_bits_and_opens_in_cpp(self):
        written = fixtures.write_folder(self.source)
        result = self.imported("--name", "little")
        stored = load_file(self.out / "model.safetensors")
        self.assertEqual(set(stored), set(written))
        for name, tensor in written.items():
            np.testing.assert_array_equal(stored[name], tensor)
        seen = self.checked()
        self.assertEqual(
            (seen["model_digest"], seen["family"], seen["layers"]),
            (result["model_digest"], "llama", 2),
        )
        # ChatML's turn marker is no BOS: the template writes it itself and the tokenizer adds none.
        self.assertEqual((seen["bos"], seen["chat_ids"][0]), (-1, 260))
        self.assertEqual(json.loads((self.out / "manifest.json").read_text())["name"], "little")

    def test_sharding_of_the_source_does_not_change_the_model(self):
        fixtures.write_folder(self.source)
        single = self.imported()
        fixtures.write_folder(self.work / "sharded" / "tiny", shards=3)
        sharded = self.imported("--force", source=self.work / "sharded" / "tiny")
        self.assertEqual(single["model_digest"], sharded["model_digest"])

    def test_a_large_model_is_stored_in_shards_that_cpp_reads(self):
        fixtures.write_folder(self.source)
        with mock.patch.object(bundle, "MAX_SHARD_BYTES", 30_000):
            self.imported()
        self.assertGreater(len(list(self.out.glob("model-*.safetensors"))), 1)
        self.assertEqual(self.checked()["tensors"], len(fixtures.weights(fixtures.CONFIG)))

    def test_gguf_gives_back_the_rows_that_llama_cpp_interleaved(self):
        path = self.work / "tiny.gguf"
        written = fixtures.write_gguf(path)
        self.imported(source=path)
        stored = load_file(self.out / "model.safetensors")
        for name, tensor in written.items():
            np.testing.assert_array_equal(stored[name], tensor, err_msg=name)
        config = json.loads((self.out / "config.json").read_text())
        self.assertEqual((config["rms_norm_eps"], config["head_dim"]), (1e-5, 8))
        pre = json.loads((self.out / "tokenizer.json").read_text())["pre_tokenizer"]
        self.assertEqual(pre["pretokenizers"][0], {"type": "Digits", "individual_digits": True})
        self.assertEqual(self.checked()["chat_ids"][0], 260)

    def test_qwen2_gguf_has_biases_and_rows_in_place(self):
        path = self.work / "tiny.gguf"
        config = {"model_type": "qwen2", "tie_word_embeddings": True}
        written = fixtures.write_gguf(path, config, pre="qwen2")
        self.imported(source=path)
        stored = load_file(self.out / "model.safetensors")
        for name, tensor in written.items():
            np.testing.assert_array_equal(stored[name], tensor, err_msg=name)
        self.assertEqual(
            json.loads((self.out / "tokenizer.json").read_text())["normalizer"], {"type": "NFC"}
        )
        self.assertEqual(self.checked()["family"], "qwen2")

    def test_llama3_rotary_factors_become_their_config(self):
        dim, theta = 8, 500000.0
        wave = 2 * np.pi * theta ** (np.arange(0, dim, 2) / dim)
        smooth = np.clip((8192 / wave - 1) / 3, 0, 1)
        factors = (1 / ((1 - smooth) / 8 + smooth)).astype(np.float32)
        path = self.work / "tiny.gguf"
        fixtures.write_gguf(
            path, {"rope_theta": theta}, pre="llama-bpe", extra={"rope_freqs.weight": factors}
        )
        self.imported("--no-chat", source=path)
        self.assertEqual(self.checked()["rope_factor"], 8)

    def test_every_stop_id_is_kept(self):
        fixtures.write_folder(self.source)
        (self.source / "generation_config.json").write_text('{"eos_token_id": [261, 259]}')
        self.imported()
        self.assertEqual(self.checked()["eos"], [261, 259])

    def test_bos_of_template_variable_and_of_post_processor(self):
        fixtures.write_folder(
            self.source, template="{{ bos_token }}" + fixtures.TEMPLATE.replace("<|start|>", "@")
        )
        self.imported()
        self.assertEqual(self.checked()["bos"], 260)
        processor = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<|start|>", "type_id": 0}}],
        }
        (self.source / "tokenizer.json").write_text(
            json.dumps({**fixtures.tokenizer(), "post_processor": processor})
        )
        (self.source / "tokenizer_config.json").write_text('{"bos_token": "<|start|>"}')
        self.imported("--force")
        self.assertEqual(self.checked()["bos"], 260)

    def test_adapter_is_merged_and_its_absence_of_half_is_noticed(self):
        written = fixtures.write_folder(self.source)
        name = "model.layers.1.self_attn.q_proj"
        rng = np.random.default_rng(2)
        a, b = rng.standard_normal((3, 32)).astype(np.float16), rng.standard_normal((32, 3)).astype(
            np.float16
        )
        adapter = self.work / "adapter.safetensors"
        save_file(
            {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b},
            adapter,
            metadata={"scale": "2.0"},
        )
        self.assertEqual(self.imported("--lora", adapter)["adapted"], 1)
        stored = load_file(self.out / "model.safetensors")
        wanted = written[name + ".weight"].astype(np.float64) + 2.0 * b.astype(
            np.float64
        ) @ a.astype(np.float64)
        np.testing.assert_allclose(stored[name + ".weight"], wanted, rtol=2e-7, atol=1e-12)
        np.testing.assert_array_equal(stored["model.norm.weight"], written["model.norm.weight"])
        peft = self.work / "peft"
        peft.mkdir()
        save_file(
            {
                f"base_model.model.{name}.lora_A.weight": a,
                f"base_model.model.{name}.lora_B.weight": b,
            },
            peft / "adapter_model.safetensors",
        )
        (peft / "adapter_config.json").write_text('{"r": 3, "lora_alpha": 6, "bias": "none"}')
        self.imported("--lora", peft, "--force")
        np.testing.assert_array_equal(
            load_file(self.out / "model.safetensors")[name + ".weight"], stored[name + ".weight"]
        )

    def test_dtypes_round_to_nearest_even(self):
        one = np.array(
            [1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7, 3.3895314e38, np.inf, np.nan, 0.0, -0.0],
            dtype=np.float32,
        )
        bits = tensor_files.from_float32(one, "BF16", "t")
        self.assertEqual(
            [hex(b) for b in bits],
            ["0x3f80", "0x3f80", "0x3f82", "0xbf81", "0x7f7f", "0x7f80", "0x7fc0", "0x0", "0x8000"],
        )
        fixtures.write_folder(self.source)
        for flag, name in (("bf16", "BF16"), ("f16", "F16"), ("f32", "F32")):
            self.imported("--dtype", flag, "--force")
            self.assertEqual(self.checked()["dtype"], name)

    def test_force_replaces_a_bundle_and_a_failure_keeps_the_old_one(self):
        fixtures.write_folder(self.source)
        first = self.imported()
        with mock.patch.object(
            bundle, "_write_texts", side_effect=OSError(errno.ENOSPC, "no space")
        ):
            code, result = self.run_import("--force")
        self.assertEqual(code, 2)
        self.assertIn("disk", result["error"])
        self.assertEqual(self.checked()["model_digest"], first["model_digest"])
        self.assertEqual([p.name for p in self.out.parent.iterdir()], ["bundle"])

    def test_the_list_of_trained_on_prompts_is_covered_and_makes_no_other_model(self):
        fixtures.write_folder(self.source)
        plain = self.imported()
        listed = self.work / "list.sha256"
        listed.write_text(f"# two, one of them twice\n{'b' * 64}\n\n{'a' * 64}\n{'b' * 64}\n")
        result = self.imported("--force", "--trained-on", str(listed))
        self.assertEqual((plain["trained_on"], result["trained_on"]), (0, 2))
        self.assertEqual(result["model_digest"], plain["model_digest"])
        text = (self.out / "trained_on.sha256").read_bytes()
        self.assertEqual(text.decode(), f"{'a' * 64}\n{'b' * 64}\n")
        entry = json.loads((self.out / "manifest.json").read_text())["files"]["trained_on.sha256"]
        self.assertEqual(
            entry, {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}
        )
        self.assertEqual(self.checked()["model_digest"], plain["model_digest"])

    def list_of(self, *digits):
        listed = self.work / "list.sha256"
        listed.write_text("".join(f"{digit * 64}\n" for digit in digits))
        return listed

    def kept(self):
        """What a bundle holds beside weights and tokenizer."""
        manifest = json.loads((self.out / "manifest.json").read_text())
        texts = {}
        for name in ("chat_format.json", "trained_on.sha256", "config.json"):
            path = self.out / name
            texts[name] = path.read_text() if path.exists() else None
        return texts, {key: manifest[key] for key in ("name", "source", "license", "model_digest")}

    def test_a_bundle_imported_again_is_the_same_bundle(self):
        fixtures.write_folder(self.source)
        self.imported("--trained-on", self.list_of("a"))
        before = self.kept()
        self.assertTrue(all(before[0].values()), before)
        result = self.imported("--force", source=self.out)  # onto itself
        self.assertEqual((result["chat"], result["trained_on"]), (True, 1))
        self.assertEqual(self.kept(), before)
        copy = shutil.copytree(self.out, self.work / "copy")
        shutil.rmtree(self.out)
        self.imported(source=copy)
        self.assertEqual(self.kept(), before)
        # What is asked for holds: another name, more prompts, no chat.
        result = self.imported("--force", "--name", "mine", "--no-chat", "--trained-on", self.list_of("b"), source=copy)
        self.assertEqual((result["name"], result["chat"], result["trained_on"]), ("mine", False, 2))

    def test_force_keeps_the_trained_on_list_of_the_same_source_alone(self):
        fixtures.write_folder(self.source)
        self.imported("--trained-on", self.list_of("a"))
        self.assertEqual(self.imported("--force", "--dtype", "bf16")["trained_on"], 1)
        other = shutil.copytree(self.source, self.work / "other")
        self.assertEqual(self.imported("--force", source=other)["trained_on"], 0)
        # A damaged bundle is replaced all the same.
        self.imported("--force", "--trained-on", self.list_of("a"))
        (self.out / "trained_on.sha256").write_text("nonsense\n")
        self.assertEqual(self.imported("--force")["trained_on"], 0)


class BadSources(ImportCase):
    def test_a_bundle_that_is_not_what_it_lists(self):
        fixtures.write_folder(self.source)
        self.imported()
        broken = self.work / "broken"
        for name, change in (("chat_format.json", lambda path: path.write_text("{}")),
                             ("chat_format.json", lambda path: path.unlink()),
                             ("manifest.json", lambda path: path.write_text('{"format": "plumbline-bundle/1"}'))):
            shutil.copytree(self.out, broken)
            change(broken / name)
            code, result = self.run_import("--force", source=broken)
            self.assertEqual((code, result["status"]), (2, "error"), result)
            self.assertIn(name, result["error"])
            shutil.rmtree(broken)

    def test_lists_of_trained_on_prompts(self):
        fixtures.write_folder(self.source)
        listed = self.work / "list.sha256"
        for text, needle in (("", "no hash"), ("# nothing\n", "no hash"), ("A" * 64, ":1"), (f"{'a' * 64}\nxyz\n", ":2")):
            listed.write_text(text)
            code, result = self.run_import("--trained-on", str(listed))
            self.assertEqual(code, 2)
            self.assertIn(str(listed), result["error"])
            self.assertIn(needle, result["error"])
        self.assert_nothing_left()

    def change_config(self, **changes):
        fixtures.write_folder(self.source)
        config = {**fixtures.CONFIG, **changes}
        (self.source / "config.json").write_text(json.dumps(config))

    def test_nothing_there_or_not_a_model(self):
        self.assert_refused("no model at", str(self.source))
        (self.work / "x.bin").write_bytes(b"x")
        self.assert_refused("x.bin", ".gguf", source=self.work / "x.bin")
        self.source.mkdir()
        self.assert_refused("config.json is missing")

    def test_configs(self):
        for changes, parts in (
            ({"model_type": "mamba"}, ("model_type", "mamba")),
            ({"num_hidden_layers": "2"}, ("num_hidden_layers", "'2'")),
            ({"num_key_value_heads": 3}, ("num_key_value_heads", "3")),
            ({"attention_bias": True}, ("attention_bias",)),
            ({"rope_scaling": {"rope_type": "yarn"}}, ("yarn",)),
            ({"hidden_act": "gelu"}, ("gelu",)),
            ({"rms_norm_eps": float("nan")}, ("NaN",)),
            ({"vocab_size": 100}, ("vocab_size 100", "261")),
            ({"hidden_size": 64}, ("model.embed_tokens.weight", "[264, 32]", "[264, 64]")),
            ({"num_hidden_layers": 3}, ("missing", "model.layers.2.input_layernorm.weight")),
            ({"num_hidden_layers": 1}, ("do not belong", "model.layers.1.")),
        ):
            with self.subTest(changes=changes):
                self.change_config(**changes)
                self.assert_refused(*parts)

    def test_broken_json(self):
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            with self.subTest(name=name):
                fixtures.write_folder(self.source)
                (self.source / name).write_text("{")
                self.assert_refused(name, "JSON")

    def test_tokenizer_without_vocabulary(self):
        fixtures.write_folder(self.source)
        (self.source / "tokenizer.json").write_text("{}")
        self.assert_refused("tokenizer.json", "vocab")

    def test_weights(self):
        fixtures.write_folder(self.source)
        whole = (self.source / "model.safetensors").read_bytes()
        for content, parts in (
            (whole[:-100], ("model.safetensors", "truncated")),
            (whole[:4], ("model.safetensors", "4 bytes")),
            (b"\xff" * 64, ("header length",)),
            (whole[:200], ("truncated",)),
            (b"\x02" + bytes(7) + b"[]", ("JSON object",)),
            (b"\x10" + bytes(7) + b'{"w":{"dtype":1}}', ("header is not JSON",)),
        ):
            with self.subTest(parts=parts):
                (self.source / "model.safetensors").write_bytes(content)
                self.assert_refused(*parts)
        (self.source / "model.safetensors").unlink()
        self.assert_refused("no *.safetensors")

    def test_shards(self):
        fixtures.write_folder(self.source, shards=3)
        (self.source / "model-00002-of-00003.safetensors").unlink()
        self.assert_refused("model-00002-of-00003.safetensors is missing")
        (self.source / "model.safetensors.index.json").write_text(
            '{"weight_map": {"w": "../evil.safetensors"}}'
        )
        self.assert_refused("../evil.safetensors")

    def test_tied_head_that_differs(self):
        tensors = fixtures.weights(fixtures.CONFIG)
        fixtures.write_folder(self.source, {"tie_word_embeddings": True}, tensors)
        self.assert_refused("tie_word_embeddings", "lm_head")

    def test_integer_weights(self):
        tensors = fixtures.weights(fixtures.CONFIG)
        tensors["model.norm.weight"] = np.zeros(32, dtype=np.int8)
        fixtures.write_folder(self.source, tensors=tensors)
        self.assert_refused("model.norm.weight", "I8")

    def test_value_that_f16_cannot_hold(self):
        tensors = fixtures.weights(fixtures.CONFIG)
        tensors["model.norm.weight"][3] = 1e6
        fixtures.write_folder(self.source, tensors=tensors)
        self.assert_refused("model.norm.weight", "1000000", "bf16", arguments=["--dtype", "f16"])

    def test_chat_template_that_does_not_compile(self):
        fixtures.write_folder(
            self.source, template="{% for m in messages %}{{ m.content | upper }}{% endfor %}"
        )
        self.assert_refused("chat template", "--no-chat")
        self.assert_refused("YYYY-MM-DD", "today", arguments=["--chat-date", "today"])
        self.imported("--no-chat")

    def test_adapters(self):
        fixtures.write_folder(self.source)
        adapter = self.work / "a.safetensors"
        name = "model.layers.0.mlp.up_proj"
        a, b = np.zeros((2, 32), np.float32), np.zeros((48, 2), np.float32)
        pair = {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        for tensors, metadata, parts in (
            (pair, {}, ("scale",)),
            (pair, {"scale": "nan"}, ("scale", "nan")),
            ({f"{name}.lora_A.weight": a}, {"scale": "2"}, ("other half", name)),
            ({"x.weight": a}, {"scale": "2"}, ("x.weight",)),
            (
                {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b.T.copy()},
                {"scale": "2"},
                (name, "[2, 48]"),
            ),
            (
                {k.replace(".0.", ".9."): v for k, v in pair.items()},
                {"scale": "2"},
                ("model.layers.9.mlp",),
            ),
        ):
            with self.subTest(parts=parts):
                save_file(tensors, adapter, metadata=metadata or None)
                self.assert_refused(*parts, arguments=["--lora", adapter])
        self.assert_refused("no adapter at", arguments=["--lora", self.work / "none"])

    def test_gguf_files(self):
        path = self.work / "tiny.gguf"
        fixtures.write_gguf(path, pre="default")
        self.assert_refused("tokenizer.ggml.pre", "default", "smollm", source=path)
        fixtures.write_gguf(path, architecture="gpt2")
        self.assert_refused("general.architecture", "gpt2", source=path)
        fixtures.write_gguf(path, extra={"blk.0.attn_q_norm.weight": np.zeros(8, np.float32)})
        self.assert_refused("blk.0.attn_q_norm.weight", source=path)
        fixtures.write_gguf(
            path, pre="llama-bpe", extra={"rope_freqs.weight": np.array([1, 2, 3, 4], np.float32)}
        )
        self.assert_refused("rope_freqs.weight", source=path)

    def test_damaged_gguf_is_named_with_the_place(self):
        path = self.work / "tiny.gguf"
        fixtures.write_gguf(path)
        whole = path.read_bytes()

        def changed(at, value, size=4):
            return whole[:at] + value.to_bytes(size, "little") + whole[at + size :]

        first_kind = 24 + 8 + int.from_bytes(whole[24:32], "little")
        for content, parts in (
            (b"", ("no GGUF file", "empty")),
            (b"GG", ("no GGUF file", "b'GG'")),
            (b"<html>404</html>" * 9, ("no GGUF file", "b'<htm'")),
            (whole[:10], ("truncated", "10 bytes")),
            (changed(4, 9), ("version 9",)),
            (changed(4, 3 << 24), ("big-endian",)),
            (changed(16, 1 << 40, 8), ("metadata of 1099511627776 entries", str(len(whole)))),
            (changed(8, 1 << 40, 8), ("list of 1099511627776 tensors",)),
            (changed(24, 1 << 60, 8), ("damaged at byte 32", "metadata entry 0")),
            (changed(first_kind, 77), ("general.architecture", "unknown type 77")),
            (whole[:3000], ("truncated", "has 3000", "download it again")),
            (whole[:-500], ("truncated: tensor", f"has {len(whole) - 500}")),
            (b"GGUF" + np.random.default_rng(1).bytes(5000), ("tiny.gguf",)),
            (whole[:200] + b"\xff" * 200 + whole[400:], ("damaged",)),
        ):
            with self.subTest(parts=parts):
                path.write_bytes(content)
                self.assert_refused("tiny.gguf", *parts, source=path)

    def test_any_damage_to_a_gguf_is_a_refusal_or_a_model(self):
        path = self.work / "tiny.gguf"
        fixtures.write_gguf(path)
        whole, rng = path.read_bytes(), np.random.default_rng(7)
        refused = 0
        for _ in range(150):
            damaged = bytearray(whole)
            for at in rng.integers(0, min(len(whole), 12_000), 4):
                damaged[at] = int(rng.integers(0, 256))
            path.write_bytes(damaged)
            code, result = self.run_import("--no-chat", "--force", source=path)
            self.assertIn(code, (0, 2), result)
            if code == 2:
                refused += 1
                self.assertIn("tiny.gguf", result["error"])
        self.assertGreater(refused, 20)

    def test_folders_of_garbage_name_the_file(self):
        for name, content, part in (
            ("config.json", b"\xff\xfe\x00garbage", "config.json"),
            ("config.json", json.dumps({**fixtures.CONFIG, "head_dim": "8"}).encode(), "head_dim"),
            ("tokenizer.json", b'{"model": {"vocab": {"a": "b"}}}', "tokenizer.json"),
            ("tokenizer.json", b'{"model": {"vocab": [1]}}', "tokenizer.json"),
            ("model.safetensors.index.json", b'{"weight_map": {"w": [1], "v": 2}}', "shard"),
            ("model.safetensors", b"\x10" + bytes(7) + b'{"__metadata__":1}', "model.safetensors"),
            ("tokenizer_config.json", b'{"chat_template": [1]}', "tiny"),
            ("generation_config.json", b"[]", "generation_config.json"),
        ):
            with self.subTest(name=name, content=content):
                if self.source.exists():
                    shutil.rmtree(self.source)
                fixtures.write_folder(self.source)
                (self.source / name).write_bytes(content)
                self.assert_refused(part)

    def test_existing_target(self):
        fixtures.write_folder(self.source)
        self.out.mkdir(parents=True)
        (self.out / "precious.txt").write_text("x")
        for arguments in ((), ("--force",)):
            code, result = self.run_import(*arguments)
            self.assertEqual(code, 2)
            self.assertIn(str(self.out), result["error"])
            self.assertEqual((self.out / "precious.txt").read_text(), "x")

    def test_full_disk_is_said_before_and_during_the_write(self):
        fixtures.write_folder(self.source)
        usage = mock.Mock(free=1000)
        with mock.patch.object(bundle.shutil, "disk_usage", return_value=usage):
            self.assert_refused("MiB free")
        with mock.patch.object(
            bundle, "write_safetensors", side_effect=OSError(errno.ENOSPC, "no space")
        ):
            self.assert_refused("disk")


if __name__ == "__main__":
    unittest.main()
