"""Records of what was submitted: made by one of several submitters, with names that every cluster takes."""

import os
import threading

import pytest
from etils import epath

from moe_jax import files
from moe_jax.config.cell import Cell
from moe_jax.errors import UserError
from moe_jax.sweep import submission_records
from moe_jax.sweep.select_jobs import job_states
from moe_jax.sweep.submission_records import SubmissionRecord, next_submission
from tests import synthetic_sweep as synthetic


def test_names_stay_within_forty_characters_up_to_the_last_retry(tmp_path):
    longest = "n" + "0" * 27
    work, _ = synthetic.make(tmp_path / "w", [Cell({}, name=longest)])
    (job,) = [s.job for s in job_states(work, work.existing_manifest())]
    record = SubmissionRecord(longest, "", 98, "xpk", "", (longest,), "queued", 0.0, "", 0, "")
    assert len(next_submission("s123456", job, record, "xpk").id) == 40
    with pytest.raises(UserError, match="was submitted 100 times"):
        next_submission("s123456", job, SubmissionRecord(**vars(record) | {"retry": 99}), "xpk")


def test_on_gcs_a_claim_asks_for_an_object_that_is_new(monkeypatch):
    """The service decides, by ifGenerationMatch=0; emulators ignore it, so what is sent is looked at."""
    core = pytest.importorskip("gcsfs.core")
    sent = []

    class Fs(core.GCSFileSystem):
        async def _call(self, method, path, *args, **kwargs):
            sent.append((method, kwargs))
            raise FileExistsError(path)  # what gcsfs makes of 412, precondition failed

    fs = Fs(token="anon", skip_instance_cache=True)  # noqa: S106
    monkeypatch.setattr("fsspec.filesystem", lambda protocol: fs)

    class Path(type(epath.Path("gs://b/c"))):
        def read_bytes(self):
            return b"another's"

    assert files.create(Path("gs://b/c"), b"mine") is False
    assert files.create(Path("gs://b/c"), b"another's") is True
    assert [kwargs["ifGenerationMatch"] for _, kwargs in sent] == ["0", "0"]


def test_a_file_is_created_once(tmp_path):
    path = epath.Path(tmp_path / "claim")
    outcomes = []
    start = threading.Barrier(8)

    def one(i):
        start.wait()
        outcomes.append((files.create(path, str(i).encode()), i))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    (winner,) = [i for created, i in outcomes if created]
    assert path.read_bytes() == str(winner).encode() and [p.name for p in path.parent.iterdir()] == ["claim"]


def test_a_process_number_that_no_system_has_is_dead():
    assert not submission_records._is_alive(10**12)
    assert submission_records._is_alive(os.getpid())
