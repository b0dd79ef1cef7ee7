"""The configs that come with moe_jax. A wheel holds them too, where `--config=configs/NAME.py` finds them."""
