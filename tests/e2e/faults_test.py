"""Faults in the middle of a study leave no mark on its result.

One diagnosis runs undisturbed. The same diagnosis then runs on a fresh data folder while a worker and
the coordinator are killed and the judge and capture stand still. Both canonical reports must be the
same bytes, and no cell may be leased or run again after its result was stored. A trigger in the store keeps
the record of leases, so that the coordinator is not asked about itself; the workers that live at the end
count the cells that they ran.

PLUMB_E2E_JUDGE_SECONDS: how long the judge stands still (30).
"""
import contextlib
import hashlib
import os
import re
import sqlite3
import time
import urllib.request

from cluster import Cluster, Study, await_true, end, say, workplace

JUDGE_SECONDS = float(os.environ.get("PLUMB_E2E_JUDGE_SECONDS", "30"))
STUDY_SECONDS = 240
# Short patience, so that what is lost or silent is noticed while the test looks on.
SETTINGS = ("coordinator.lease_ttl_seconds=3", "coordinator.capture.timeout_ms=1500",
            "coordinator.judge.timeout_ms=1500", "coordinator.audit_fraction=1e-12",
            "workers.0.threads=1", "workers.1.threads=1")

TRIGGERS = """
CREATE TABLE e2e_leased (cell_key TEXT, worker TEXT, stored_before INTEGER);
CREATE TRIGGER e2e_on_lease AFTER INSERT ON lease_cells BEGIN
  INSERT INTO e2e_leased SELECT NEW.cell_key,
    (SELECT worker_id FROM leases WHERE lease_id = NEW.lease_id),
    EXISTS (SELECT 1 FROM results WHERE cell_key = NEW.cell_key);
END;
CREATE TABLE e2e_changed (cell_key TEXT);
CREATE TRIGGER e2e_on_change AFTER UPDATE ON results
  WHEN OLD.result != NEW.result OR OLD.worker_id != NEW.worker_id BEGIN
  INSERT INTO e2e_changed VALUES (NEW.cell_key);
END;
"""


def watch_leases(cluster):
    with contextlib.closing(sqlite3.connect(f"{cluster.data}/plumbline.sqlite", timeout=30)) as store:
        store.executescript(TRIGGERS)


def cells_run(cluster, worker):
    """By the present process of a worker."""
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.ports(worker)['metrics']}/metrics",
                                timeout=20) as answer:
        page = answer.read().decode()
    counts = re.findall(r"^plumb_worker_cells_total\{.*\} (\S+)$", page, re.MULTILINE)
    return sum(int(float(count)) for count in counts)


def check_runs(cluster, killed_after):
    """What worker-1 and the worker-0 of after its kill ran, against grants and results. Every grant was made
    before the cell's result was stored, so a worker that runs each grant at most once runs none again."""
    grants = dict(cluster.query("SELECT worker, COUNT(*) FROM e2e_leased WHERE worker = 'worker-1' "
                                f"OR rowid > {killed_after} GROUP BY 1"))
    stored = dict(cluster.query(
        "SELECT worker_id, COUNT(*) FROM results WHERE worker_id = 'worker-1' OR cell_key IN "
        f"(SELECT cell_key FROM e2e_leased WHERE worker = 'worker-0' AND rowid > {killed_after}) GROUP BY 1"))
    for worker in ("worker-0", "worker-1"):
        ran = cells_run(cluster, worker)
        say(f"{worker}: {ran} cells run, {grants[worker]} leased to it, {stored[worker]} results stored from it")
        assert stored[worker] <= ran <= grants[worker], worker


def start_study(cluster, folder, name):
    return Study("diagnose", "--coordinator", cluster.address, "--model", "tiny-chat",
                 "--max-new-tokens", "8", "--max-prompts", "240", "--out", os.path.join(folder, name))


def undisturbed(folder):
    cluster = Cluster(os.path.join(folder, "calm"), os.path.join(folder, "models"), settings=SETTINGS)
    try:
        watch_leases(cluster)
        started = time.monotonic()
        study = start_study(cluster, folder, "calm-report")
        study.finish(STUDY_SECONDS)
        report = cluster.canonical(study.id())
        results, leased = cluster.count("results"), cluster.count("e2e_leased")
        say(f"undisturbed: {results} cells in {time.monotonic() - started:.1f} s, {leased} leased")
        assert leased == results, "without faults every cell is leased once"
        ran = sum(cells_run(cluster, worker) for worker in ("worker-0", "worker-1"))
        assert ran == results, f"{ran} cells run for {results} results"
        return report, results
    finally:
        end(cluster.process)


def message(cluster):
    return cluster.query("SELECT message FROM experiments")[0][0]


def more_results(cluster, number):
    """Until so many more results are stored and further cells are out on leases."""
    before = cluster.count("results")
    await_true(lambda: cluster.count("results") >= before + number and cluster.count("lease_cells"),
               90, f"{number} more results")


def kill_worker(cluster):
    def holds_cells():
        return cluster.query("SELECT COUNT(*) FROM lease_cells JOIN leases USING (lease_id) "
                             "WHERE worker_id = 'worker-0'")[0][0]
    held = await_true(holds_cells, 60, "a lease of worker-0")
    # Read before the next process can ask for work: what is granted after this is that one's.
    killed_after = cluster.kill("worker-0", then=lambda: cluster.count("e2e_leased"))
    say(f"killed worker-0 (it held {held} cells) after {cluster.count('results')} results")
    return killed_after


def kill_coordinator(cluster):
    more_results(cluster, 100)
    cluster.kill("coordinator")
    say(f"killed the coordinator after {cluster.count('results')} results, "
        f"with {cluster.count('lease_cells')} cells on leases")


def stop_judge(cluster):
    more_results(cluster, 100)
    with cluster.stopped("judge"):
        time.sleep(2.5)  # verdicts that were on their way arrive
        # Answers equal to one that was judged before take its verdict without asking.
        before = cluster.count("(SELECT DISTINCT verdict_key FROM verdicts)")
        said = await_true(lambda: "judge" in message(cluster) and message(cluster), 60,
                          "word that the judge is waited for")
        time.sleep(max(0.0, JUDGE_SECONDS - 2.5))
        assert cluster.count("(SELECT DISTINCT verdict_key FROM verdicts)") == before, (
            "verdicts came from a judge that stood still")
    say(f"the judge stood still for {JUDGE_SECONDS:.0f} s at {before} judged answers: '{said}'")


def stop_capture(cluster, study):
    """Returns only after the study has said what it waits for."""
    with cluster.stopped("capture"):
        said = await_true(lambda: "capture" in message(cluster) and message(cluster), STUDY_SECONDS,
                          "word that capture is waited for")
        assert said.startswith("waiting for"), said
        stage = cluster.query("SELECT stage FROM experiments")[0][0]
        time.sleep(3)
        assert cluster.query("SELECT stage FROM experiments")[0][0] == stage, "it did not wait"
        assert study.process.poll() is None, study.output()
    say(f"capture stood still: stage '{stage}' said '{said}'")


def disturbed(folder):
    cluster = Cluster(os.path.join(folder, "storm"), os.path.join(folder, "models"),
                      settings=SETTINGS)
    try:
        watch_leases(cluster)
        study = start_study(cluster, folder, "storm-report")
        killed_after = kill_worker(cluster)
        kill_coordinator(cluster)
        stop_judge(cluster)
        stop_capture(cluster, study)
        study.finish(STUDY_SECONDS)
        assert "waiting for" in study.output(), "the command did not show that the study waited"
        report = cluster.canonical(study.id())
        again = cluster.query("SELECT COUNT(*) FROM e2e_leased WHERE stored_before")[0][0]
        leased = cluster.count("e2e_leased")
        results, changed = cluster.count("results"), cluster.count("e2e_changed")
        say(f"disturbed: {results} cells, {leased} leased ({leased - results} lost to kills), "
            f"{again} leased after their result was stored, {changed} results changed")
        assert leased > results, "no lease was lost: the kills came too late to test anything"
        assert again == 0 and changed == 0
        check_runs(cluster, killed_after)
        return report, results
    finally:
        end(cluster.process)


def main():
    with workplace() as folder:
        calm, calm_cells = undisturbed(folder)
        storm, storm_cells = disturbed(folder)
        say("canonical reports:", hashlib.sha256(calm).hexdigest()[:16], len(calm), "bytes;",
            hashlib.sha256(storm).hexdigest()[:16], len(storm), "bytes")
        assert calm_cells == storm_cells
        assert calm == storm, "the canonical reports differ"
        assert len(calm) > 100_000, "an empty report would equal another"


if __name__ == "__main__":
    main()
