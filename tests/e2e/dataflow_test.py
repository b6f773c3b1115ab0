"""The data of a diagnosis really flows from service to service over gRPC.

A study runs through relays that change nothing: its canonical report must be the bytes of a run under
`plumb up`. Then one thing is changed on its way - a captured key, a verdict, an error of quantsim, an
answer of pcr - and exactly what depends on it may differ in the report. Where a service is away, the
study says for whom it waits and goes on by itself.
"""
import hashlib
import importlib.util
import json
import os
import sys
import time

if not importlib.util.find_spec("grpc_tools"):
    print("SKIPPED: no grpcio-tools in .venv; run scripts/setup.sh --test")
    sys.exit(0)

import grpc  # noqa: E402
import numpy as np  # noqa: E402

from cluster import Cluster, Study, await_true, end, say, workplace  # noqa: E402
from dataflow_oracles import (HUGE, Recordings, differences, lonely_refusal, only,  # noqa: E402
                              outlier_channels, outliers_among, set_key)
from relays import Change, RelayedCluster, make_stubs, v1  # noqa: E402

STUDY_SECONDS = 240
DEPLOYED = "int5.asym.token"  # neither the target nor the mechanism preset
LAYER = 1


def start_study(cluster, name, *words):
    return Study("diagnose", "--coordinator", cluster.address, "--model", "tiny-chat",
                 "--max-new-tokens", "8", "--max-prompts", "240", "--utility-text", "none",
                 "--request-id", name, "--out", os.path.join(cluster.data, name), *words)


def finished(cluster, study):
    """The canonical report of a study, after its end."""
    study.finish(STUDY_SECONDS)
    return cluster.canonical(study.id())


def study_report(cluster, name, *words):
    started = time.monotonic()
    report = json.loads(finished(cluster, start_study(cluster, name, *words)))
    say(f"  study '{name}': {time.monotonic() - started:.1f} s")
    return report


def refuses_other_uploads(cluster, recordings, report):
    """Capture takes the same upload again and refuses another one under its id."""
    stub = v1("capture_pb2_grpc").ActivationCaptureStub(cluster.relays["capture"].channel)
    capture = report["channels"]["capture_id"]

    def record(change=None):
        messages = [type(m).FromString(m.SerializeToString()) for m in recordings.uploads[capture]]
        if change is not None:
            set_key(messages[1].block, 3, change)
        try:
            return stub.Record(iter(messages), timeout=20).capture_digest
        except grpc.RpcError as error:
            return error.code().name, error.details()

    assert record() == report["channels"]["capture_digest"], "the same bytes have the same digest"
    refused = {"ALREADY_EXISTS": record(HUGE), "INVALID_ARGUMENT": record(float("nan"))}
    for code, answer in refused.items():
        assert answer[0] == code, answer
        say(f"  another upload under its id: {code}, {answer[1][:120]}")


def under_plumb_up(folder):
    cluster = Cluster(os.path.join(folder, "up"), os.path.join(folder, "models"), settings=(
        "coordinator.audit_fraction=1e-12", "workers.0.threads=1", "workers.1.threads=1"))
    try:
        return finished(cluster, start_study(cluster, "plain"))
    finally:
        end(cluster.process)


def passes_through(cluster, plain, recordings):
    cluster.relays["capture"].watch = recordings
    relayed = finished(cluster, start_study(cluster, "relayed"))
    assert relayed == plain, "the relays alone changed the report"
    report = json.loads(relayed)
    seen = {name: dict(relay.messages) for name, relay in cluster.relays.items()}
    for name, methods in (("capture", ("Record", "GetStats", "Read")), ("judge", ("Judge",)),
                          ("quantsim", ("Simulate",)), ("pcr", ("Classify",))):
        for method in methods:
            requests, responses = seen[name][method, "request"], seen[name][method, "response"]
            assert requests and responses, f"{name} was not asked to {method}"
            say(f"  {name}.{method}: {requests} messages there, {responses} back")
    channels = report["channels"]
    assert channels["outlier_channels"] == outlier_channels(
        recordings.keys(channels["capture_id"], channels.get("layer", 0)))
    every_layers_keys(recordings, channels)
    return report


def every_layers_keys(recordings, channels):
    sizes = recordings.key_magnitudes(channels["capture_id"])
    told = channels["key_outliers"]
    assert [keys.get("layer", 0) for keys in told] == sorted(sizes), "a layer is missing"
    for keys in told:
        size = sizes[keys.get("layer", 0)].astype(float)
        assert keys.get("largest_channel", 0) == int(np.argmax(size))
        assert keys["largest"] == size.max() and keys["median"] == np.median(size)
        assert keys["largest_over_median"] == size.max() / np.median(size)
        assert keys["outlier_channels"] == outliers_among(size.astype(np.float32))
    say(f"  largest key channel over the median: "
        f"{', '.join('%.2f' % keys['largest_over_median'] for keys in told)}")


def waits_for_services(cluster, plain):
    """Capture, quantsim and pcr are away from the start and come back one after the other."""
    away = {"capture": "outlier channels", "quantsim": "kv errors", "pcr": "failure mode"}
    for service in away:
        cluster.take_away(service)
    study = start_study(cluster, "waiting")
    waiting = v1("study_pb2").EXPERIMENT_STATE_WAITING
    experiment = study.id()
    for service, needed_at in away.items():
        def says_so():
            state, stage, message = cluster.query(
                f"SELECT state, stage, message FROM experiments WHERE id = '{experiment}'")[0]
            return state == waiting and message.startswith(f"waiting for {service} ") and (
                stage, message)
        stage, message = await_true(says_so, 60, f"word that {service} is waited for")
        assert stage == needed_at, (service, stage)
        say(f"  without {service}: '{message}'")
        assert study.process.poll() is None
        cluster.bring_back(service)
    assert finished(cluster, study) == plain, "waiting left a mark on the report"
    for service in away:
        assert f"waiting for {service} " in study.output(), "the command did not say so"


def one_simulated_error(cluster, before):
    def alter(response, call):
        for error in response.errors:
            if (error.format, error.layer) == (DEPLOYED, LAYER):
                error.keys.relative_mse = 0.4242
                return True
        return False

    change = Change("Simulate", "response", v1("quantsim_pb2").SimulateResponse, alter)
    with cluster.relays["quantsim"].changing(change):
        after = study_report(cluster, "quantsim")
    path = f"kv_errors[{DEPLOYED} layer {LAYER}].keys.relative_mse"
    changed = differences(before, after)
    assert list(changed) == [path] and changed[path][1] == 0.4242, changed
    say(f"  {path}: {changed[path][0]:.6f} -> {changed[path][1]}")


def one_key_read_by_quantsim(cluster, before):
    def alter(response, call):
        if not response.HasField("block") or response.block.layer != LAYER:
            return False
        if response.block.prompt_index == 0:
            set_key(response.block, 3)
        return response.block.prompt_index == 0

    change = Change("Read", "response", v1("capture_pb2").ReadResponse, alter)
    with cluster.relays["capture"].changing(change):
        after = study_report(cluster, "read")
    changed = only(differences(before, after), "kv_errors[", "kv_flip_correlation")
    rows = {path.partition("]")[0] for path in changed if path.startswith("kv_errors")}
    of_layer = {f"kv_errors[{e['format']} layer {LAYER}" for e in before["kv_errors"]
                if e.get("layer", 0) == LAYER}
    assert rows == of_layer, f"{rows ^ of_layer}"
    assert not [path for path in changed if ".values." in path], "values changed with a key"
    say(f"  {len(rows)} formats of layer {LAYER} have other key errors, other layers none")


def one_classification(cluster, before):
    modes = v1("report_pb2").FailureMode
    was = before["headline"]["mode"]
    other = "FAILURE_MODE_MIXED" if was != "FAILURE_MODE_MIXED" else "FAILURE_MODE_DILUTION"

    def alter(response, call):
        response.mode = modes.Value(other)
        response.pcr_paper.pcr.estimate = 0.123
        return True

    change = Change("Classify", "response", v1("pcr_pb2").ClassifyResponse, alter)
    with cluster.relays["pcr"].changing(change):
        after = study_report(cluster, "pcr")
    changed = differences(before, after)
    assert set(changed) == {"headline.mode", "pcr_paper.pcr.estimate"}, changed
    assert changed["headline.mode"] == (was, other)
    assert changed["pcr_paper.pcr.estimate"][1] == 0.123
    say(f"  headline.mode: {was} -> {other}; PCR {changed['pcr_paper.pcr.estimate'][0]} -> 0.123")


def one_captured_key(folder, before, recordings):
    """A fresh cluster: what was captured once is not captured again."""
    channels = before["channels"]
    layer, was = channels.get("layer", 0), channels["outlier_channels"]
    keys = recordings.keys(channels["capture_id"], layer)
    channel = next(c for c in range(keys[0].shape[1])
                   if c not in was and c not in channels["low_channels"])

    def alter(request, call):
        if request.HasField("header"):
            call["capture"] = request.header.capture_id
        elif (call["capture"] == channels["capture_id"] and request.HasField("block")
              and request.block.prompt_index == 0):
            set_key(request.block, channel)
            return True
        return False

    cluster = RelayedCluster(os.path.join(folder, "capture"), os.path.join(folder, "models"))
    try:
        change = Change("Record", "request", v1("capture_pb2").RecordRequest, alter)
        with cluster.relays["capture"].changing(change):
            after = study_report(cluster, "capture", "--no-plans")
        outlying = {key for key, condition in cluster.query(
            "SELECT cell_key, cell_condition FROM experiment_cells") if "outlier" in condition}
    finally:
        cluster.close()
    changed = only(differences(before, after), "channels.outlier_", "channels.capture_digest",
                   f"channels.key_outliers[{layer}].",
                   "channels.conditions[outlier channels only]",
                   "channels.conditions[all but outlier channels]", "cells[")
    keys[0] = keys[0].copy()
    keys[0][0, channel] = HUGE
    now = after["channels"]["outlier_channels"]
    assert channel in now and now == outlier_channels(keys), (was, now)
    assert "channels.capture_digest" in changed and "channels.outlier_threshold" in changed
    gained = {cell["cell_key"] for cell in after["cells"]} - {c["cell_key"] for c in before["cells"]}
    assert gained and gained <= outlying, "cells of other conditions changed"
    say(f"  outlier channels of layer {layer}: {was} -> {now}; {len(gained)} other cells ran for it")


def one_verdict(folder, before, choice):
    cell, prompt, condition = choice

    def alter(response, call):
        if response.key != cell:
            return False
        assert response.verdict.label == v1("cell_pb2").VERDICT_LABEL_REFUSE
        response.verdict.label = v1("cell_pb2").VERDICT_LABEL_COMPLY
        return True

    cluster = RelayedCluster(os.path.join(folder, "judge"), os.path.join(folder, "models"))
    try:
        change = Change("Judge", "response", v1("judge_pb2").JudgeResponse, alter)
        with cluster.relays["judge"].changing(change):
            after = study_report(cluster, "judge", "--no-plans")
    finally:
        cluster.close()
    changed = only(differences(before, after), f"cells[{cell}].verdict", f"sweep[{condition}].",
                   "sweep[", "examples", "lowest_safe_format")
    assert changed[f"cells[{cell}].verdict"] == ("VERDICT_LABEL_REFUSE", "VERDICT_LABEL_COMPLY")
    flips = changed[f"sweep[{condition}].flips"]
    assert int(flips[1]) == int(flips[0] or 0) + 1, flips
    others = {path for path in changed if path.startswith("sweep[")
              and not path.startswith(f"sweep[{condition}].") and not path.endswith(".holm_p")}
    assert not others, f"other conditions changed: {others}"  # Holm's correction is over all
    say(f"  {condition}, prompt {prompt}: refuse -> comply, flips {flips[0] or 0} -> {flips[1]}")


def main():
    with workplace() as folder:
        make_stubs(os.path.join(folder, "stubs"))
        started = time.monotonic()

        def part(title):
            say(f"[{time.monotonic() - started:5.1f} s] {title}")

        part("without relays")
        plain = under_plumb_up(folder)
        part("through relays that change nothing")
        recordings = Recordings()
        cluster = RelayedCluster(os.path.join(folder, "relayed"), os.path.join(folder, "models"))
        try:
            report = passes_through(cluster, plain, recordings)
            part(f"equal: {hashlib.sha256(plain).hexdigest()[:16]}, {len(plain)} bytes")
            part("one number of quantsim")
            one_simulated_error(cluster, report)
            part("one key between capture and quantsim")
            one_key_read_by_quantsim(cluster, report)
            part("one answer of pcr")
            one_classification(cluster, report)
            part("capture, quantsim and pcr away")
            waits_for_services(cluster, plain)
            part("an upload that is not what was captured")
            refuses_other_uploads(cluster, recordings, report)
            short = start_study(cluster, "short", "--no-plans")
            before = json.loads(finished(cluster, short))
            choice = lonely_refusal(cluster, short.id(), before)
        finally:
            cluster.close()
        part("one captured key")
        one_captured_key(folder, before, recordings)
        part("one verdict")
        one_verdict(folder, before, choice)
        part("done")


if __name__ == "__main__":
    main()
