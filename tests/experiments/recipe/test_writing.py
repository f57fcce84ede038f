from pathlib import Path

from peft import LoraConfig

from hf_align.experiments.recipe import check_recipe, dump_recipe, read_recipe
from hf_align.trainers.ppo.config import PPOConfig
from tests.experiments.recipe.files import BASE, write


def test_a_dumped_recipe_reads_back_the_same(tmp_path: Path) -> None:
    flags = ["--learning_rate", "2e-5", "--lora.r", "4", "--output_dir", "true story", "--hub_token", "secret"]
    checked = check_recipe(read_recipe(write(tmp_path, BASE), flags), PPOConfig, LoraConfig, ["reference"])
    text = dump_recipe(checked, PPOConfig)
    assert "secret" not in text
    again = check_recipe(read_recipe(write(tmp_path, text), []), PPOConfig, LoraConfig, ["reference"])
    assert (again.source, again.lora) == (checked.source, checked.lora)
    written = {key: value for key, value in checked.config.items() if key != "hub_token"}
    assert again.config.items() >= written.items()
    assert PPOConfig(**again.config).to_dict() == PPOConfig(**written).to_dict()
    places = [text.index(part) for part in ("model: m", "# defaults of PPOConfig", "lam: 0.95", "# defaults of Trai")]
    assert places == sorted(places)
