"""How programs end: in one message and a code, whatever happens."""

import os
import signal
import subprocess
import sys
import time

import pytest

from einsort_vla.ending import FAULT, INCOMPLETE, MISUSE

START = "import sys; from einsort_vla.ending import end, keeping\n"


@pytest.fixture
def ended(tmp_path):
    """A program whose body is given, run to its end."""

    def ended(body, **options):
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "SECRET": "hidden"}
        environment |= options.pop("environment", {})
        code = f"{START}def run():\n  {body}\n  return 0\nend(run)"
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, env=environment, **options
        )

    return ended


def test_a_fault_is_one_line_and_its_traceback_is_kept_for_its_user_alone(ended, tmp_path):
    for body, name in [
        ("{}['text']", "KeyError: 'text'"),
        ("f = lambda: f()\n  f()", "RecursionError: maximum recursion depth"),
        ("b'\\xff'.decode()", "UnicodeDecodeError"),
    ]:
        result = ended(body)
        (line,) = result.stderr.decode().splitlines()
        assert (result.returncode, result.stdout) == (FAULT, b"")
        assert f"this is a fault of einsort-vla: {name}" in line
        (file,) = (tmp_path / "state" / "einsort-vla" / "faults").iterdir()
        assert line.endswith(f"please report it with {file}")
        text = file.read_text()
        assert "Traceback (most recent call last)" in text
        assert sys.version.split()[0] in text
        assert "hidden" not in text
        assert file.stat().st_mode & 0o777 == 0o600
        file.unlink()


def test_a_fault_is_kept_in_the_folder_for_temporary_files_where_there_is_no_other(ended, tmp_path):
    (tmp_path / "file").touch()
    result = ended("1 / 0", environment={
        "XDG_STATE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path),
    })  # fmt: skip
    (file,) = tmp_path.glob("einsort-vla-fault-*.txt")
    assert str(file) in result.stderr.decode()


def test_errors_that_users_can_mend(ended, tmp_path):
    for body, message in [
        (
            "from einsort_vla.errors import UsageError as E; raise E('no such rate.')",
            "no such rate",
        ),
        ("raise MemoryError", "Close other programs, or do less at once"),
        ("import numpy; numpy.zeros(10**18)", "memory is not enough for this: Unable to allocate"),
        ("import torch; torch.zeros(10**16)", "the memory is not enough for this"),
        ("open('/nowhere/file')", "No such file or directory: '/nowhere/file'"),
    ]:
        result = ended(body)
        assert result.returncode == MISUSE
        assert len(result.stderr.splitlines()) == 1
        assert result.stderr.startswith(b"Error: ")
        assert message in result.stderr.decode()
    assert not (tmp_path / "state").exists()


def test_terminals_that_know_few_characters_and_outputs_that_are_closed(ended):
    result = ended("print('\\u2501 r\\xe9sum\\xe9')", environment={"PYTHONIOENCODING": "latin-1"})
    assert (result.returncode, result.stdout) == (0, "\\u2501 résumé\n".encode("latin-1"))
    body = "print('x'); print(open('/dev/null').fileno() > 2, file=sys.stderr)"
    closed = ended(body, preexec_fn=lambda: [os.close(k) for k in (0, 1)])
    assert (closed.returncode, closed.stderr) == (0, b"True\n")
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-c", f"{START}end(lambda: print('x' * 9999))"],
            stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert result.returncode == MISUSE
    assert result.stderr == b"Error: [Errno 28] No space left on device\n"
    result = ended("print('x'); sys.exit('half')")
    assert (result.returncode, result.stderr) == (INCOMPLETE, b"half\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("with keeping(lambda: 'Three are kept.'): time.sleep(60)", "Stopped. Three are kept.\n"),
        ("time.sleep(60)", "Stopped. What was finished is kept; nothing is half-written.\n"),
        # A library turns the stop into an error of its own.
        ("try: time.sleep(60)\n  except BaseException as e: raise ImportError('x') from e",
         "Stopped. What was finished is kept; nothing is half-written.\n"),
    ],
)  # fmt: skip
def test_a_stop_says_what_is_kept(number, body, said):
    code = f"import time\n{START}def run():\n  print('ready', flush=True)\n  {body}\nend(run)"
    assert stopped(code, number) == (128 + number, said)


def test_a_second_stop_ends_at_once():
    code = (
        f"import time\n{START}def run():\n  print('ready', flush=True)\n  try: time.sleep(60)\n"
        "  except KeyboardInterrupt: print('again', flush=True); time.sleep(60)\nend(run)"
    )
    assert stopped(code, signal.SIGINT, 2) == (-signal.SIGINT, "")


def test_the_commands_own_code_wins_over_a_stop_that_it_survived():
    code = (
        f"import time\n{START}def run():\n  print('ready', flush=True)\n  try: time.sleep(60)\n"
        "  except KeyboardInterrupt: return {}\nend(run)"
    )
    assert stopped(code.format(0), signal.SIGINT) == (0, "")
    assert stopped(code.format(1), signal.SIGINT) == (130, "")


def stopped(code, number, times=1):
    """Exit code and error output of a program that is sent a signal for each line it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A runner in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(times):
        process.stdout.readline()
        time.sleep(0.05)  # it prints, then sleeps
        process.send_signal(number)
    _, said = process.communicate(timeout=50)
    return process.returncode, said
