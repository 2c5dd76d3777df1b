"""Super-resolution models for satellite images: six diffusion processes written as one bridge.

Start at `sr_models.registry.load_model`; docs/models.md has the mathematics and the commands.
"""
