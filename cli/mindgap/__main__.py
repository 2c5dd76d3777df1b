"""`python -m lpips_sat.cli.mindgap`, which `accelerate launch` needs."""

from . import main

main(prog_name="mindgap")
