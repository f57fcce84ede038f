import torch

from hf_align.experiments.quickstart.duration import MEASURED, forecast
from hf_align.experiments.quickstart.stages import STAGES
from hf_align.models.precision import compute_dtype


def test_forecast_is_in_proportion_to_the_machines_speed_and_the_stages_left() -> None:
    own = MEASURED[compute_dtype()]
    names = [stage.name for stage in STAGES]
    assert all(list(measured.seconds) == names for measured in MEASURED.values())
    whole = sum(own.seconds.values()) / 60
    assert f"about {whole:.0f} minutes here" in forecast(names, own.speed)
    assert f"about {2 * whole:.0f} minutes here" in forecast(names, own.speed / 2)
    assert f"about {own.seconds['ppo'] / 60:.0f} minutes here" in forecast(["ppo"], own.speed)
    assert ("avx512_bf16 take" in forecast(names, own.speed)) == (compute_dtype() == torch.float32)
