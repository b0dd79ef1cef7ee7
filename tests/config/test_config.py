"""Every wrong value is refused in one sentence with the field, the value and the rule; right ones survive unchanged."""

import json
from pathlib import Path

import pytest

from moe_jax.config import config_file, counts, fields, grid
from moe_jax.errors import UserError


def load(*overrides, file="configs/common.py"):
    return config_file.load([f"--config={file}", *(f"--config.{o}" for o in overrides)]).config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("moe.granularty=4", ["config.moe.granularty", "no such field", "did you mean config.moe.granularity?"]),
        ("zzz.qq=1", ["config.zzz.qq", "no such field; configs/common.py lists"]),
        ("optim.lr=1e-3", ["config.optim.lr", "did you mean config.optim.learning_rate?"]),
        ("optim.wd=0.1", ["did you mean config.optim.weight_decay?"]),
        ("model.dmodel=64", ["did you mean config.model.d_model?"]),
        ("moe.topk=2", ["did you mean config.moe.top_k?"]),
        ("train.batch=2", ["did you mean config.train.batch_sequences?"]),
        ("data.seq_len=2", ["did you mean config.data.sequence_length?"]),
        ("moe.granularity=3", ["config.moe.granularity = 3", "must divide model.d_ff = 256"]),
        ("moe.granularity='abc'", ["config.moe.granularity = 'abc'", "must be a number"]),
        ("moe.granularity=0", ["config.moe.granularity = 0", "above 0"]),
        ("train.tokens=1.5", ["config.train.tokens = 1.5", "whole number"]),
        ("train.tokens=-5", ["config.train.tokens = -5", "above 0"]),
        ("moe.n_experts=5", ["config.moe.n_experts = 5", "expansion_rate · granularity = 8 · 1 = 8"]),
        ("moe.top_k=9", ["config.moe.top_k = 9", "active_rate · granularity = 1 · 1 = 1"]),
        ("moe.active_rate=9", ["top_k = 9", "more experts than there are, n_experts = 8"]),
        ("moe.active_rate=0.5", ["config.moe.active_rate = 0.5", "whole number of experts, not 0.5"]),
        ("moe.softmax=after_top_k", ["config.moe.softmax", "top_k = 1", "no gradient"]),
        ("moe.softmax=sideways", ["config.moe.softmax = 'sideways'", "must be one of 'before_top_k', 'after_top_k'"]),
        ("moe.bias_update_rate=-0.1", ["config.moe.bias_update_rate = -0.1", "must not be below 0"]),
        ("model.remat=True", ["config.model.remat = True", "must be a text"]),
        ("model.remat=all", ["config.model.remat = 'all'", "must be one of 'none', 'block', 'dispatch'"]),
        ("moe.router=hash", ["config.moe.router = 'hash'", "'module:name' for a router of your own"]),
        ("moe.router=my module:x", ["config.moe.router = 'my module:x'", "'module:name'"]),
        ("moe.router=", ["config.moe.router = ''", "must be one of"]),
        ("moe.capacity_factor=0.01", ["config.moe.capacity_factor = 0.01", "less than one slot"]),
        ("moe.group_sequences=5", ["config.moe.group_sequences = 5", "must divide the 32 sequences"]),
        ("mesh.expert=3", ["config.mesh.expert = 3", "must divide the 8 experts"]),
        ("mesh={'replica': -1, 'data': -1, 'expert': 1}", ["config.mesh", "only one axis may be -1"]),
        ("mesh.data=0", ["config.mesh.data = 0", "above 0, or -1"]),
        ("model.n_heads=5", ["config.model.n_heads = 5", "must divide model.d_model = 64"]),
        ("model.activation=tanh", ["config.model.activation = 'tanh'", "must be one of"]),
        ("optim.betas=(0.9,2)", ["config.optim.betas = (0.9, 2)", "[0, 1)"]),
        ("optim.name=sgd", ["config.optim.name = 'sgd'", "'adamw', 'muon', 'lion', 'adafactor'"]),
        ("optim.name=muon", ["config.optim.momentum = None", "muon needs it; 0.95 is usual"]),
        ("optim.name=lion", ["config.optim.eps = 1e-08", "lion has none; set None"]),
        ("optim.name=adafactor", ["config.optim.betas = (0.9, 0.95)", "adafactor has none; set None"]),
        ("optim.momentum=0.9", ["config.optim.momentum = 0.9", "adamw has none; set None"]),
        ("optim.betas=None", ["config.optim.betas = None", "adamw needs it; (0.9, 0.95) is usual"]),
        ("optim.matrix_rate=0", ["config.optim.matrix_rate = 0", "above 0"]),
        ("optim.warmup_tokens=100", ["config.optim.warmup_tokens = 100", "not both"]),
        ("optim.warmup_fraction=1.5", ["config.optim.warmup_fraction = 1.5", "at most 1"]),
        ("train.microbatches=3", ["config.train.microbatches = 3", "must divide train.batch_sequences = 32"]),
        ("skip_step.rolling_interval=7", ["config.skip_step.rolling_interval = 7", "at least 8"]),
        ("eval.sequences=0", ["config.eval.sequences = 0", "above 0"]),
        ("eval.dispatch=fast", ["config.eval.dispatch = 'fast'", "must be one of 'slots', 'dropless', 'dense'"]),
        ("moe=3", ["config.moe = 3", "group of fields"]),
        ("seed=None", ["config.seed = None", "whole number"]),
    ],
)
def test_a_wrong_value_gets_its_sentence(override, words):
    with pytest.raises(UserError) as e:
        load(override)
    for word in words:
        assert word in str(e.value)
    assert "\n" not in str(e.value)


def test_packed_runs_keep_two_checkpoints_at_least():
    """They are saved one after the other: a kill between two must leave a step that all have."""
    assert load("sweep.pack=2", "checkpoint.keep=2") and load("checkpoint.keep=1")
    with pytest.raises(UserError, match=r"config.checkpoint.keep = 1: packed runs .* takes at least 2 of each"):
        load("sweep.pack=2", "checkpoint.keep=1")


def test_expert_choice_groups_must_give_whole_sequences():
    with pytest.raises(UserError, match=r"group · K / E = 4 · 1 / 8 = 0.5"):
        load(
            "moe.router=expert_choice",
            "moe.softmax=over_experts",
            "moe.load_balance_loss_weight=0",
            "moe.group_sequences=4",
        )


@pytest.mark.parametrize("field", ["load_balance_loss_weight", "bias_update_rate"])
def test_expert_choice_is_balanced_as_it_is(field):
    others = ("moe.router=expert_choice", "moe.softmax=over_experts", "moe.load_balance_loss_weight=0")
    with pytest.raises(UserError, match=f"config.moe.{field} = 0.25: expert_choice is balanced as it is; set 0"):
        load(*others, f"moe.{field}=0.25")


def test_both_forms_of_a_moe_layer_agree():
    by_rates = load("moe.granularity=4", "moe.active_rate=2").moe
    by_counts = load(
        "moe.expansion_rate=None",
        "moe.granularity=None",
        "moe.active_rate=None",
        "moe.n_experts=32",
        "moe.top_k=8",
        "moe.d_expert=64",
    ).moe
    assert by_rates == by_counts
    assert (by_rates.n_experts, by_rates.top_k, by_rates.d_expert, by_rates.sparsity) == (32, 8, 64, 0.75)


def test_an_override_of_a_dense_model_is_refused():
    with pytest.raises(UserError, match="None"):
        load("moe=None", "moe.granularity=2")
    assert load("moe=None").moe is None


@pytest.mark.parametrize(
    "overrides", [(), ("moe=None",), ("moe.granularity=4", "optim.clip_norm=None", "train.tokens=1e6")]
)
def test_a_config_survives_json(overrides):
    config = load(*overrides)
    assert fields.from_dict(json.loads(json.dumps(fields.to_dict(config)))) == config


def test_a_missing_field_is_refused():
    values = fields.to_dict(load())
    del values["optim"]["eps"]
    with pytest.raises(UserError, match=r"config.optim.eps: is missing"):
        fields.from_dict(values)


START = "from configs import common\nfrom moe_jax.config.grid import Cell\nget_config = common.get_config\n"
GRID = START + "def get_grid(config, arg=None):\n    return {}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(arg=None):\n    return 1 / 0\n", ["ZeroDivisionError", "line 2"]),
        ("def get_config(:\n", ["SyntaxError"]),
        ("import sys\nsys.exit(0)\n", ["SystemExit", "line 2"]),
        ("def get_config(arg=None):\n    raise SystemExit(0)\n", ["SystemExit", "line 2"]),
        ("x = 1\n", ["has no get_config"]),
        ("def get_config(arg=None):\n    return {}\n", ["must give a ConfigDict"]),
        (GRID.format("[]"), ["get_grid() must give a list"]),
        (GRID.format("[{}, 3]"), ["get_grid() must give a list", "cell 2 is a int"]),
        (GRID.format("({} for _ in range(3))"), ["get_grid() must give a list", "it gave a generator"]),
        (GRID.format("[{'seed': 1}, {1: 2}]"), ["cell 2 of the grid: a cell's fields must be texts"]),
        (GRID.format("[{'seed': 1, 'name': 'a'}]"), ["'name' is no field of a config: write grid.Cell({…}, name=…)"]),
        (GRID.format("1 / 0"), ["get_grid failed", "ZeroDivisionError", "line 5"]),
        (START + "def get_grid(arg=None):\n    return []\n", ["write it as def get_grid(config, arg=None)"]),
    ],
)  # fmt: skip
def test_a_broken_config_file_gets_its_sentence(tmp_path, text, words):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "common.py").write_bytes((Path(__file__).parents[2] / "configs" / "common.py").read_bytes())
    file = tmp_path / "configs" / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError) as e:
        config_file.load([f"--config={file}"])
    for word in [str(file), *words]:
        assert word in str(e.value)


def test_what_the_command_line_gives_is_not_lost_in_a_grid():
    """Where every cell sets the field, it is refused; a rule or a budget follows from it."""
    file = config_file.load(["--config=configs/smoke.py:tiny", "--config.model.d_model=64"])
    with pytest.raises(UserError, match=r"--config.model.d_model=64: every cell of the grid of .* sets it"):
        file.check_overrides()
    base = ["--config=configs/abnar2025.py:smoke"]
    files = [config_file.load(base), config_file.load([*base, "--config.data.sequence_length=128"])]
    for file in files:
        file.check_overrides()
        V = file.config.model.vocab_size
        for run in grid.expand(file.base.to_dict(), file.cells):
            assert counts.count_flops(run.config, V).flops_abnar2025 == pytest.approx(3e10, rel=0.1)
    tokens = [[cell.overrides["train.tokens"] for cell in file.cells if cell.refused is None] for file in files]
    assert tokens[0] != tokens[1]


def test_a_config_elsewhere_starts_from_ours(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import common\n\ndef get_config(arg=None):\n    config = common.get_config()\n"
        "    config.seed = 7\n    return config\n"
    )
    assert config_file.load([f"--config={file}"]).config.seed == 7


def test_config_flags_need_a_file_and_a_value():
    with pytest.raises(UserError, match="no such file"):
        config_file.load(["--config=configs/nope.py"])
    with pytest.raises(UserError, match="give one config file"):
        config_file.load([])
    with pytest.raises(UserError, match="=VALUE"):
        config_file.load(["--config=configs/common.py", "--config.seed"])
    assert config_file.split(["--config", "a.py", "--workdir=w", "--config.seed=1"]) == (
        ["--config=a.py", "--config.seed=1"],
        ["--workdir=w"],
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["decay_fraction=0.2"], "decay_fraction = 0.2: cosine has none"),
        (["schedule=wsd"], "decay_fraction = None: wsd needs a share"),
        (["schedule=wsd", "decay_fraction=1.5"], "decay_fraction = 1.5: wsd needs a share"),
        (["schedule=wsd", "decay_fraction=0.2"], "warmup_tokens = None: wsd warms up over tokens"),
        (
            ["schedule=wsd", "decay_fraction=0.5", "warmup_fraction=None", "warmup_tokens=300000"],
            "warmup_tokens = 300000: are 147 steps, but the decay begins after 94 of the 188 steps",
        ),
    ],
)
def test_wsd_needs_what_all_tokens_have_in_common(flags, words):
    file = config_file.load(["--config=configs/common.py", *(f"--config.optim.{flag}" for flag in flags)])
    with pytest.raises(UserError) as e:
        _ = file.config
    assert words in str(e.value)


@pytest.mark.parametrize("router", ["token_choice", "my_routers:hashed"])
def test_a_router_of_ones_own_is_held_to_the_rules_of_token_choice(router):
    """What its tokens choose is taken from the experts' slots; its weights may be of either order."""
    config = load(f"moe.router={router}", "moe.softmax=after_top_k", "moe.active_rate=2", "moe.bias_update_rate=0.1")
    assert config.moe.router_module == (None if router == "token_choice" else "my_routers")
    for wrong in ("moe.softmax=over_experts", "moe.capacity_factor=0.01"):
        with pytest.raises(UserError):
            load(f"moe.router={router}", wrong)


WARMUP = ["optim.warmup_fraction=None", "optim.warmup_tokens=1e6"]
WSD = ["optim.schedule=wsd", "optim.warmup_fraction=None", "optim.warmup_tokens=1024"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (WARMUP, r"warmup_tokens = 1000000: are \d+ steps, but the run has \d+$"),
        ([*WSD[:2], WARMUP[1], "optim.decay_fraction=0.2"], "are .* steps, but the decay begins after"),
        (
            [*WSD, "optim.decay_fraction=0.01"],
            r"decay_fraction = 0.01: is 1 of the \d+ steps, over which",
        ),
    ],
)
def test_a_schedule_that_never_reaches_its_rate_is_refused(overrides, words):
    with pytest.raises(UserError, match=words):
        load("train.tokens=65536", *overrides)
    load("train.tokens=65536", *WSD, "optim.decay_fraction=0.2")


EXPERT_CHOICE = (
    "moe.router=expert_choice", "moe.softmax=over_experts", "moe.load_balance_loss_weight=0", "moe.group_sequences=8",
)  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "dispatch"),
    [
        ((), "dropless"),
        (("moe.dispatch=dropless",), "dropless"),
        (("moe.dispatch=dense",), "dense"),
        (("eval.dispatch=slots",), "slots"),
        (("moe.dispatch=dropless", "eval.dispatch=slots"), "slots"),
        (("moe.batch_prioritised=True",), "slots"),
        (("moe.batch_prioritised=True", "moe.dispatch=dense"), "dense"),
        (EXPERT_CHOICE, "slots"),
        ((*EXPERT_CHOICE, "eval.dispatch=dense"), "dense"),
        (("moe.router=mine:route",), None),  # shows where it is imported
        (("moe.router=mine:route", "moe.dispatch=dropless"), "dropless"),
        (("moe=None",), None),
        (("moe=None", "eval.dispatch=dropless"), None),  # a grid may have dense twins
    ],
)
def test_the_dispatch_of_evaluations_is_written_out(overrides, dispatch):
    config = load(*overrides)
    assert config.eval.dispatch == dispatch
    again = fields.from_dict(json.loads(json.dumps(fields.to_dict(config))))
    assert again == config


@pytest.mark.parametrize("overrides", [EXPERT_CHOICE, ("moe.batch_prioritised=True",)])
def test_what_drops_by_itself_has_no_dropless_evaluation(overrides):
    with pytest.raises(UserError, match=r"config\.eval\.dispatch = 'dropless': .* has no dropless evaluation"):
        load(*overrides, "eval.dispatch=dropless")


def test_an_evaluation_with_slots_needs_slots():
    with pytest.raises(UserError, match="less than one slot"):
        load("moe.dispatch=dropless", "eval.dispatch=slots", "moe.capacity_factor=0.01")
    load("moe.dispatch=dropless", "moe.capacity_factor=0.01")
