"""What DVC runs: `python -m stages NAME ITEM`, warm where a stage server is up, the same bytes."""

import sys

from facet.launch import find_stage, launch_stage

if __name__ == "__main__":
    launch_stage(find_stage(sys.argv[1:2]), sys.argv[2:])
