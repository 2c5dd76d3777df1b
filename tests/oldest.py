"""Print pip constraints to the oldest release that pyproject.toml allows of every dependency.

python tests/oldest.py > oldest.txt
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

# The tools that check the tree are not what users install.
RUN = ("sample", "report", "annotate", "distributed")
BOUND = re.compile(r"([\w-]+)(?:\[[\w,]+\])?>=([\d.]+)")


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for need in [*project["dependencies"], *(need for name in RUN for need in extras[name])]:
        if found := BOUND.match(need):
            sys.stdout.write(f"{found[1]}=={found[2]}.*\n")


if __name__ == "__main__":
    main()
