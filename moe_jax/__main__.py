"""`python -m moe_jax VERB …`, the same as `moe-jax VERB …`: how launchers and scripts start a verb."""

from moe_jax.cli.main import main

if __name__ == "__main__":
    main()
