"""The event file under bad conditions: killed, full, forked, crowded, left open."""

import io
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from test_events import made, simple_values, values, written

from trainer.events import Events, file, writer
from trainer.wire import decode

PRELUDE = """
import os, sys, time, warnings
from pathlib import Path
from trainer.events import Events, writer
from test_events import made
writer.POLL_SECONDS, writer.FLUSH_SECONDS = 0.02, 0.1
events = Events(Path(sys.argv[1]))
"""


def child(folder: Path, code: str) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    source = f"import sys; sys.path[:0] = {paths}\n{PRELUDE}{textwrap.dedent(code)}"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source, str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def steps_in(folder: Path) -> tuple[list[int], list[int]]:
    """The steps of the curve of the loss and of the records in the one file of the folder."""
    (path,) = folder.iterdir()
    blocks = [v.tensor.string_val[0] for _, v in values(path) if v.tag == "records"]
    curve = [step for tag, step in simple_values(path) if tag == "loss/train"]
    return curve, [record.step for block in blocks for record in decode(block)]


def status(path: Path) -> int | None:
    for _, value in values(path):
        if value.tag == "_hparams_/session_end_info":
            content = value.metadata.plugin_data.content
            data = plugin_data_pb2.HParamsPluginData.FromString(content)
            return int(data.session_end_info.status)
    return None


def test_the_file_is_framed_as_tensorboard_frames_it(tmp_path: Path) -> None:
    path = written(tmp_path, [made(k) for k in range(3)])
    events = list(RawEventFileLoader(str(path)).Load())
    expected = io.BytesIO()
    for event in events:
        RecordWriter(expected).write(event)
    assert path.read_bytes() == expected.getvalue()
    first = Event.FromString(events[0])
    assert first.file_version == "brain.Event:2" and first.source_metadata.writer == "trainer"
    assert path.name.startswith("events.out.tfevents.")
    assert path.name.removeprefix("events.out.tfevents.").split(".")[0].isdigit()


def test_two_files_of_one_second_have_two_names(tmp_path: Path) -> None:
    for _ in range(2):
        Events(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_loses_at_most_what_the_last_flush_had_not(tmp_path: Path) -> None:
    process = child(tmp_path, """
        for step in range(100):
            events.write(made(step))
        time.sleep(2)  # twenty times the interval
        for step in range(100, 200):
            events.write(made(step))
        print("written", flush=True)
        os.kill(os.getpid(), 9)
    """)  # fmt: skip
    output, error = process.communicate()
    assert process.returncode == -9 and output == "written\n", error
    curve, records = steps_in(tmp_path)
    assert curve[:100] == records[:100] == list(range(100))
    assert curve == list(range(len(curve))) and records == list(range(len(records)))


@pytest.mark.parametrize("end", ["", "raise RuntimeError('in the training')", "sys.exit(3)"])
def test_the_end_of_the_interpreter_writes_everything(tmp_path: Path, end: str) -> None:
    process = child(tmp_path, f"""
        writer.POLL_SECONDS = 60
        events.hyperparameters({{"lr": 0.1}})
        for step in range(500):
            events.write(made(step))
        {end}
    """)  # fmt: skip
    _, error = process.communicate()
    assert process.returncode == {"": 0, "r": 1, "s": 3}[end[:1]], error
    _, records = steps_in(tmp_path)
    assert records == list(range(500))
    (path,) = tmp_path.iterdir()
    assert status(path) == 2, "nobody said that the run succeeded"


def test_a_fork_writes_nothing_twice(tmp_path: Path) -> None:
    process = child(tmp_path, """
        for step in range(50):
            events.write(made(step))
        if os.fork() == 0:
            events.close()
            sys.exit()
        os.wait()
        events.write(made(50))
        events.close()
    """)  # fmt: skip
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert steps_in(tmp_path) == (list(range(51)), list(range(51)))


def test_a_full_disk_ends_in_one_warning_and_training_goes_on(tmp_path: Path) -> None:
    # The limit of a file's size is to a writer what a full disk is.
    process = child(tmp_path, """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(1000):
                events.write(made(step))
                time.sleep(0.001)
            assert not events._writer._waiting and not len(events._writer._block)
            events.text("more", "text")
            events.close()
            events.close()
        print([str(w.message).replace(sys.argv[1], "RUN") for w in caught])
        print(Path(caught[0].filename).name)
    """)  # fmt: skip
    output, error = process.communicate()
    assert process.returncode == 0, error
    assert output.splitlines() == [
        "['events can no longer be written to RUN: [Errno 27] File too large; "
        "training goes on, TensorBoard shows nothing newer']",
        "<string>",
    ]
    (path,) = tmp_path.iterdir()
    assert 10_000 < path.stat().st_size <= 20_000, "whole events only"
    assert len(list(RawEventFileLoader(str(path)).Load())) > 5, "what was written can be read"


def test_the_caller_can_print_the_warning_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    events = Events(tmp_path, warn=told.append)

    def flush(_: file.EventFile) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file.EventFile, "flush", flush)
    events.write(made(0))
    events.close()
    assert len(told) == 1 and "No space left on device; training goes on" in told[0]


def test_a_record_that_cannot_be_written_does_not_end_the_training(tmp_path: Path) -> None:
    events = Events(tmp_path)
    record = made(0)
    vars(record)["update_ratio"] = record.update_ratio[:1]
    events.write(record)
    with pytest.warns(RuntimeWarning, match="events can no longer be written"):
        events.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        events.close()


def test_a_writer_that_cannot_keep_up_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WAITING_RECORDS", 8)
    monkeypatch.setattr(writer, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(writer, "BLOCK_RECORDS", 5)
    add = file.EventFile.add

    def slow_add(self: file.EventFile, event: bytes) -> None:
        time.sleep(0.001)
        add(self, event)

    monkeypatch.setattr(file.EventFile, "add", slow_add)
    events, longest = Events(tmp_path), 0
    for step in range(300):
        events.write(made(step, histograms=step % 50 == 0))
        longest = max(longest, len(events._writer._waiting))
    events.close()
    assert 4 < longest <= 8
    assert steps_in(tmp_path) == (list(range(300)), list(range(300)))


def test_large_records_are_held_in_small_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made(0, histograms=True)
    monkeypatch.setattr(writer, "HELD_BYTES", 6 * record.gradients.histograms.nbytes)
    monkeypatch.setattr(writer, "POLL_SECONDS", 0.005)
    events, longest = Events(tmp_path), 0
    for step in range(100):
        events.write(made(step, histograms=True))
        longest = max(longest, len(events._writer._waiting))
    events.close()
    assert longest <= 6
    assert steps_in(tmp_path)[1] == list(range(100))


def test_events_that_nobody_closed_are_written_when_they_are_forgotten(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.write(made(0))
    del events
    assert steps_in(tmp_path) == ([0], [0])


@pytest.mark.parametrize(("failed", "wanted"), [(False, 1), (True, 2)])
def test_the_status_of_a_run_is_that_of_its_end(tmp_path: Path, failed: bool, wanted: int) -> None:
    events = Events(tmp_path)
    events.hyperparameters({"lr": 0.1})
    events.close(failed)
    (path,) = tmp_path.iterdir()
    assert status(path) == wanted


def test_without_hyperparameters_there_is_no_session(tmp_path: Path) -> None:
    assert status(written(tmp_path, [made(0)])) is None


def test_a_hyperparameter_of_another_type_is_refused(tmp_path: Path) -> None:
    events = Events(tmp_path)
    with pytest.raises(TypeError, match="hyperparameter 'betas': expected a bool, a number or a "):
        events.hyperparameters({"betas": (0.9, 0.99)})
    events.close()


def test_events_load_no_torch_and_no_tensorflow() -> None:
    code = "import sys, trainer.events; print({'torch', 'tensorflow', 'numba'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True, cwd=Path(__file__).parent.parent)  # fmt: skip
    assert result.stdout == "set()\n"


def test_any_file_is_read_as_tensorboard_reads_it(tmp_path: Path) -> None:
    """Whole, cut anywhere, and with any byte changed."""
    path = tmp_path / "events.out.tfevents.1"
    with path.open("wb") as opened:
        writing = RecordWriter(opened)
        for event in (b"one", b"", b"another event"):
            writing.write(event)
    whole = path.read_bytes()
    assert list(file.serialized(path)) == [b"one", b"", b"another event"]
    cut = [whole[:size] for size in range(len(whole))]
    changed = [bytes([*whole[:at], whole[at] ^ 0x41, *whole[at + 1 :]]) for at in range(len(whole))]
    for content in cut + changed:
        path.write_bytes(content)
        assert list(file.serialized(path)) == list(RawEventFileLoader(str(path)).Load())
    length = file.LENGTH.pack(2**63)
    path.write_bytes(length + file._masked_crc(length) + whole)
    assert list(file.serialized(path)) == [], "no memory is asked for what cannot be there"
