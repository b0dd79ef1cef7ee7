"""Where config files are found, and what they import: the user's own first, then those that come with moe_jax."""

import sys

import pytest

from moe_jax.config import config_file, packaged
from moe_jax.errors import UserError
from tests.conftest import ROOT

FILE = "from configs import common\n\ndef get_config(arg=None):\n    return common.get_config()\n"
LATE = "def get_config(arg=None):\n    from configs import common\n    return common.get_config()\n"
COMMON = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("ours", {str(ROOT / "configs" / "common.py")!r})
ours = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ours)
def get_config(arg=None):
    config = ours.get_config()
    config.seed = SEED
    return config
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def seed_of(file):
    return config_file.load([f"--config={file}"]).config.seed


def write(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_ours_are_found_from_anywhere(elsewhere):
    assert packaged.find("configs/smoke.py") == ROOT / "configs" / "smoke.py"
    assert config_file.load(["--config=configs/smoke.py:tiny"]).config.model.n_layers == 1


def test_a_file_that_is_there_comes_first(elsewhere):
    write(elsewhere / "configs", "smoke.py", FILE)
    assert packaged.find("configs/smoke.py").read_text() == FILE
    assert config_file.load(["--config=configs/smoke.py"]).cells is None


@pytest.mark.parametrize("file", ["configs/smok.py", "smoke.py", "mine/configs/smoke.py"])
def test_what_is_not_there_gets_a_sentence_with_ours(elsewhere, file):
    with pytest.raises(
        UserError, match=r"no such file; moe_jax comes with configs/abnar2025.py, configs/common.py, .*sm"
    ):
        packaged.find(file)


@pytest.mark.parametrize("text", [FILE, LATE], ids=["at the top", "in get_config"])
def test_files_with_neighbours_of_one_name_each_take_their_own(elsewhere, text):
    files = []
    for seed in (5, 6):
        folder = elsewhere / f"project{seed}" / "configs"
        write(folder, "common.py", COMMON.replace("SEED", str(seed)))
        files.append(write(folder, "mine.py", text))
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "configs"}
    assert [seed_of(file) for file in files] == [5, 6]
    assert seed_of(write(elsewhere / "alone", "mine.py", text)) == 0  # ours
    assert before == {name: module for name, module in sys.modules.items() if name.split(".")[0] == "configs"}


def test_neighbours_in_a_folder_of_another_name(elsewhere):
    write(elsewhere / "sweeps", "common.py", COMMON.replace("SEED", "8"))
    assert seed_of(write(elsewhere / "sweeps", "mine.py", FILE.replace("from configs", "from sweeps"))) == 8
