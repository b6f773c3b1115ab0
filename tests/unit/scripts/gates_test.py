"""scripts/lint.sh and scripts/sanitize.sh end badly when a tool is absent, fails or finds something.

Every tool is a stand-in on a PATH of its own; the scripts are the real ones.
"""
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
SHELL_TOOLS = ("bash", "cat", "date", "dirname", "grep", "ls", "mkdir", "nproc", "rm", "sed", "tail", "tee", "xargs")
CLEAN = "exit 0"


class Gate(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        for tool in SHELL_TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))

    def tool(self, name, body, folder=None):
        path = (folder or self.bin) / name
        path.write_text(f"#!{self.bin}/bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run_script(self, name):
        """(exit status, everything it said)"""
        done = subprocess.run([self.bin / "bash", ROOT / "scripts" / name], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, env={
                                  "PATH": str(self.bin), "PLUMB_BUILD": str(self.folder / "build"),
                                  "PLUMB_DATA": str(self.folder / "data"),
                                  "PLUMB_VENV": str(self.folder / "venv")})
        return done.returncode, done.stdout


class Lint(Gate):
    def setUp(self):
        super().setUp()
        venv = self.folder / "venv" / "bin"
        venv.mkdir(parents=True)
        for name in ("buf", "python"):
            self.tool(name, CLEAN, venv)
        self.tool("git", "echo services/a.cc")
        self.tool("clang-format", CLEAN)
        (self.folder / "build").mkdir()
        (self.folder / "build" / "compile_commands.json").write_text("[]")

    def test_a_clean_run_passes(self):
        self.tool("clang-tidy", "echo '12 warnings generated.' >&2")
        self.assertEqual(self.run_script("lint.sh")[0], 0)

    def test_an_absent_clang_tidy_fails(self):
        code, said = self.run_script("lint.sh")
        self.assertEqual(code, 1)
        self.assertIn("no clang-tidy", said)

    def test_a_clang_tidy_that_cannot_run_fails_and_its_reason_is_shown(self):
        self.tool("clang-tidy", "echo 'cannot load the compilation database' >&2; exit 1")
        code, said = self.run_script("lint.sh")
        self.assertEqual(code, 1)
        self.assertIn("cannot load the compilation database", said)

    def test_a_finding_fails_whatever_the_exit_status(self):
        for status in (0, 1):
            self.tool("clang-tidy", f"echo 'services/a.cc:1:2: warning: odd [odd-check]'; exit {status}")
            code, said = self.run_script("lint.sh")
            self.assertEqual(code, 1)
            self.assertIn("odd-check", said)

    def test_our_headers_are_linted_and_those_of_others_are_not(self):
        text = (ROOT / ".clang-tidy").read_text()
        ours = re.compile(re.search(r"^HeaderFilterRegex: '(.*)'$", text, re.MULTILINE).group(1))
        headers = subprocess.run(["git", "ls-files", "services/*.h", "kernels/*.h"], cwd=ROOT, check=False,
                                 capture_output=True, text=True).stdout.split()
        for header in headers + ["services/quant/plan.h", "kernels/vec.h"]:
            self.assertTrue(ours.search(f"/home/someone/plumbline/{header}"), header)
        for header in ("/usr/include/absl/status/status.h", "/home/someone/plumbline/tests/support/a.h",
                       "/srv/services/plumbline/build/proto/plumbline/v1/cell.pb.h"):
            self.assertFalse(ours.search(header), header)


class Sanitize(Gate):
    def setUp(self):
        super().setUp()
        for name in ("cmake", "ninja", "ctest", "clang++"):
            self.tool(name, CLEAN)

    def test_a_clean_run_passes_and_runs_the_programs_under_asan(self):
        self.tool("ctest", f'echo "${{ASAN_OPTIONS:-}} $*" >>{self.folder}/runs')
        self.assertEqual(self.run_script("sanitize.sh")[0], 0)
        programs = [line for line in (self.folder / "runs").read_text().splitlines() if "e2e_" in line]
        self.assertEqual(len(programs), 1)
        self.assertTrue(programs[0].startswith("log_path="), programs)

    def test_an_absent_fuzzing_compiler_fails(self):
        (self.bin / "clang++").unlink()
        code, said = self.run_script("sanitize.sh")
        self.assertEqual(code, 1)
        self.assertIn("clang++", said)
        self.assertNotIn("clean", said)

    def test_a_failing_test_fails(self):
        self.tool("ctest", "exit 8")
        self.assertNotEqual(self.run_script("sanitize.sh")[0], 0)

    def test_a_report_of_any_process_fails_though_the_tests_pass(self):
        self.tool("ctest", 'log=${ASAN_OPTIONS:-}; log=${log#log_path=}\n[ -z "$log" ] || echo heap-use-after-free >"$log.7"')
        code, said = self.run_script("sanitize.sh")
        self.assertEqual(code, 1)
        self.assertIn("heap-use-after-free", said)


if __name__ == "__main__":
    unittest.main()
