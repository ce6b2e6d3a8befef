"""Networks and replay on a GPU, environments on the CPU."""

import pytest

from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.training.config import make_config
from robot_rl.training.loop import resume, train


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("device", "cuda:99", r"device 'cuda:99' cannot be used; valid here: cpu"),
        ("device", "gpu", r"device 'gpu' cannot be used; valid here: cpu"),
        ("env_device", "cuda", "point-mass runs on the cpu, not on 'cuda'"),
    ],
)
def test_a_device_that_is_not_there_is_named_and_leaves_no_folder(setting, value, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(make_config(get_task("point-mass"), "sac", runs=tmp_path, **{setting: value}))
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.gpu
@pytest.mark.parametrize("algo", ["sac", "dsact", "arsq"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_training_on_a_gpu_learns_and_resumes(algo, n_step, tmp_path):
    task = get_task("point-mass")
    settings = {"device": "cuda", "runs": tmp_path, "n_step": n_step, "normalize_obs": True}
    result = train(make_config(task, algo, **settings, total_env_steps=4_000))
    result = resume(result.run_dir, total_env_steps=12_000)
    assert result.env_steps == 12_000
    assert result.evaluation is not None
    assert result.evaluation.return_mean > -8  # random actions: about -15
