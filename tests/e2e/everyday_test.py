"""What a user does on any day: models of which some are broken, two commands at once, output into a pipe that
is closed, and taking answers away for good.
"""
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys

import tiny_bundle
from bad_bundles import BUNDLES, make_all
from cluster import PLUMB, Cluster, alive, await_true, children, end, run, say, workplace

sys.path.insert(0, os.path.dirname(tiny_bundle.make_tiny_model.__file__))
from make_tiny_model import write_manifest  # noqa: E402

SECRET = "Tell me of the purple xylophone."


def make_raw_only(folder):
    """The tiny model as a base model: no chat format."""
    shutil.copytree(os.path.join(folder, "models", "tiny"), os.path.join(folder, "base"))
    os.remove(os.path.join(folder, "base", "chat_format.json"))
    write_manifest(os.path.join(folder, "base"), "tiny-base")


def write_prompts(folder):
    path = os.path.join(folder, "mine.txt")
    with open(path, "w") as file:
        file.write("".join(f"{SECRET} Part {i}.\n" for i in range(6)))
    return path


def check_models(folder, prompts):
    """Every broken bundle beside good ones: the good ones are served, the broken ones named."""
    root = os.path.join(folder, "mixed")
    make_all(root, os.path.join(folder, "models", "tiny"))
    shutil.rmtree(os.path.join(root, "chat-absent"))
    shutil.rmtree(os.path.join(root, "no-manifest"))  # no bundle at all
    shutil.rmtree(os.path.join(root, "file-flipped"))  # its digest is the good one's
    shutil.copytree(os.path.join(folder, "models", "tiny"), os.path.join(root, "zz-tiny"))
    shutil.copytree(os.path.join(folder, "base"), os.path.join(root, "zz-base"))
    broken = set(BUNDLES) - {"chat-absent", "no-manifest", "file-flipped"}
    cluster = Cluster(os.path.join(folder, "mixed-data"), root, workers=1)
    try:
        output = os.pread(cluster.log.fileno(), 1 << 20, 0).decode()
        left_out = set(re.findall(r"^left out +\S*/([\w-]+): \S", output, re.MULTILINE))
        # What only loading the weights or a prompt can show is found at the start for the first alone.
        late = {"tensor-missing", "tensor-shape", "tokenizer-ids", "chat-joints"}
        assert broken - late <= left_out <= broken, (broken ^ left_out, output)
        assert re.search(r"^model +tiny-chat \(\w+\)$", output, re.MULTILINE), output
        assert re.search(r"^model +tiny-base \(\w+\), raw prompts only", output, re.MULTILINE), output
        study = ["custom", "--kv", "*:int4.asym.token", "--prompts", prompts, "--coordinator", cluster.address,
                 "--max-new-tokens", "4"]
        refused = run(*study, "--model", "tiny-base", check=False)
        assert refused.returncode == 2 and "--raw" in refused.stderr, refused.stderr
        assert cluster.count("experiments") == 0
        for words in (["--model", "tiny-base", "--raw"], ["--model", "tiny-chat"]):
            done = run(*study, *words, "--out", os.path.join(folder, "report"))
            assert done.stdout.lstrip().startswith("MEASURED"), done.stdout
            assert "UNDECIDED" not in done.stdout and "set aside" not in done.stdout, done.stdout
            assert re.search(r"^  int4\.asym\.token: \d+ of \d+ refusals?", done.stdout, re.MULTILINE), done.stdout
        # What shows late ends its own study, with the reason, and nothing else.
        failed = run(*study, "--model", "tensor-missing", check=False)
        assert failed.returncode == 1 and "model.norm.weight" in failed.stderr, failed.stderr
        say(f"{len(left_out)} broken bundles left out and named, 2 models served, a raw-only one with --raw alone")
    finally:
        end(cluster.process)


def check_raw_alone(folder, prompts):
    """Without a coordinator the refusal comes before anything is started."""
    base = os.path.join(folder, "base")
    data = os.path.join(folder, "raw-data")
    shown = run("models", "show", base).stdout
    assert "raw prompts only" in shown, shown
    refused = run("diagnose", "--model", base, "--prompts", prompts, "--data", data, check=False)
    assert refused.returncode == 2 and "--raw" in refused.stderr and not os.path.exists(data), refused.stderr
    done = run("generate", "--model", base, "--prompts", prompts, "--raw", "--max-new-tokens", "2", "--json")
    assert len(done.stdout.splitlines()) == 6


def store_bytes(data):
    found = b""
    for folder, _, files in os.walk(data):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                found += file.read()
    return found


def check_readers(data, experiment):
    """Readers of one data folder wait for each other; whoever stops reading leaves nothing behind."""
    commands = [["list"], ["report", experiment, "--format", "json", "--out", "-"], ["results", experiment],
                ["list"], ["gate", experiment, "--condition", "int4.asym.token"], ["report", experiment, "--out", "-"]]
    with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
        ended = list(pool.map(lambda words: run(*words, "--data", data, check=False), commands))
    for words, done in zip(commands, ended):
        allowed = (0, 1, 3) if words[0] == "gate" else (0,)
        assert done.returncode in allowed and done.stdout, (words, done.returncode, done.stderr)
    for words in (["list"], ["results", experiment, "--show-texts"]):
        reader = subprocess.Popen([PLUMB, *words, "--data", data], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  stdin=subprocess.DEVNULL)
        services = await_true(lambda: children(reader.pid), 30, "the reader's coordinator")
        reader.stdout.close()
        reader.wait(30)
        message = reader.stderr.read().decode()
        reader.stderr.close()
        assert reader.returncode == 0 and not message, (reader.returncode, message)
        left = [pid for pid in services if alive(pid)]
        assert not left, f"{words[0]} into a closed pipe left {left}"
    say(f"{len(commands)} readers at once on one folder; a closed pipe leaves no process")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run([PLUMB, "list", "--data", data], stdout=full, stderr=subprocess.PIPE, timeout=60,
                                  check=False)
        assert done.returncode == 1 and b"No space left" in done.stderr, (done.returncode, done.stderr)


def check_killed(data):
    """plumb killed outright: the next command finds the folder free."""
    reader = subprocess.Popen([PLUMB, "list", "--data", data], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL)
    await_true(lambda: children(reader.pid), 30, "the reader's coordinator")
    reader.kill()
    reader.communicate(timeout=30)
    run("list", "--data", data)


def check_purge(folder, prompts):
    data = os.path.join(folder, "purge-data")
    words = ["custom", "--model", os.path.join(folder, "models", "tiny"), "--data", data, "--prompts", prompts,
             "--kv", "*:int4.asym.token", "--max-new-tokens", "8", "--full-answers"]
    run(*words)
    experiment = run("list", "--data", data).stdout.splitlines()[1].split()[0]
    check_readers(data, experiment)
    check_killed(data)
    for extra in (["--show-texts"], ["--show-texts", "--format", "json"], ["--canonical"]):
        run("report", experiment, "--data", data, *extra)
    before = [json.loads(line) for line in run("results", experiment, "--show-texts", "--data", data).stdout.splitlines()]
    assert len(before) == 12 and all(row["result"]["token_ids"] for row in before)
    texts = {row["result"]["text"].strip() for row in before} | {SECRET}
    held = store_bytes(data)
    assert all(text.encode() in held for text in texts if text)
    report = json.loads(run("report", experiment, "--format", "json", "--out", "-", "--data", data).stdout)

    said = run("purge", experiment, "--data", data).stdout
    assert "removed" in said and "anew" in said, said
    left = store_bytes(data)
    assert SECRET.encode() not in left
    assert not [text for text in texts if len(text) > 12 and text.encode() in left]
    after = [json.loads(line) for line in run("results", experiment, "--show-texts", "--data", data).stdout.splitlines()]
    for old, new in zip(before, after):
        result = new["result"]
        assert not {"token_ids", "text", "first_tokens", "prompt_digest"} & set(result), result
        assert new["verdict"] == old["verdict"] and result["finish_reason"] == old["result"]["finish_reason"]
    purged = json.loads(run("report", experiment, "--format", "json", "--out", "-", "--data", data).stdout)
    assert purged["sweep"] == report["sweep"] and purged["headline"] == report["headline"]

    # A later study must not conclude from what is gone.
    run(*words, "--name", "again")
    newest = run("list", "--data", data).stdout.splitlines()[1].split()[0]
    again = [json.loads(line) for line in run("results", newest, "--show-texts", "--data", data).stdout.splitlines()]
    assert newest != experiment
    assert [row["result"]["token_ids"] for row in again] == [row["result"]["token_ids"] for row in before]
    run("purge", newest, "--everything", "--data", data)
    assert not os.path.exists(os.path.join(data, "reports", newest))
    say("purge leaves verdicts and counts; no text, no token id in any file of the data folder")


def check_sweep_speaks_of_its_plans(folder, prompts):
    done = run("sweep", "--model", os.path.join(folder, "models", "tiny"), "--data", os.path.join(folder, "sweep-data"),
               "--prompts", prompts, "--kv", "*:int8.asym.token", "--max-new-tokens", "4")
    assert "int8.asym.token" in done.stdout and "int4" not in done.stdout + done.stderr, done.stdout + done.stderr
    told = re.search(r"at most (\S+) cells, (\S+) tokens, at most about \S+; stages: baseline", done.stderr)
    assert told, done.stderr
    say("a study first tells cells, tokens and time:", told.group(0))


def check_provenance(folder):
    """The report, read when no worker is left, names the build and the machine that computed."""
    data = os.path.join(folder, "sweep-data")
    experiment = run("list", "--data", data).stdout.splitlines()[1].split()[0]
    report = json.loads(run("report", experiment, "--format", "json", "--out", "-", "--data", data).stdout)
    workers = report["provenance"]["workers"]
    version = run("--version").stdout.split()[-1]
    assert [worker["version"] for worker in workers] == [version], (workers, version)
    assert "core" in workers[0]["machine"] and "GiB" in workers[0]["machine"], workers
    say("provenance:", version, workers[0]["machine"])


def main():
    with workplace() as folder:
        make_raw_only(folder)
        prompts = write_prompts(folder)
        check_raw_alone(folder, prompts)
        check_sweep_speaks_of_its_plans(folder, prompts)
        check_provenance(folder)
        check_purge(folder, prompts)
        check_models(folder, prompts)


if __name__ == "__main__":
    main()
