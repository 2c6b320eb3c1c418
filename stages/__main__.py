"""What DVC runs: `python -m stages NAME ITEM`, warm where a stage server is up, the same bytes."""

import sys

from facet.base.names import STAGES
from facet.launch import launch_stage

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STAGES:
        sys.exit(f"usage: python -m stages {{{','.join(STAGES)}}} [ITEM]")
    launch_stage(sys.argv[1], sys.argv[2:])
