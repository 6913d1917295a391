"""``python -m onepen``: the ``onepen`` command of this environment."""

import os
import sys
import sysconfig
from pathlib import Path


def main() -> None:
    schemes = {sysconfig.get_path("scripts")}
    # `pip install --user`, and an interpreter that was not started as the environment's.
    schemes.add(sysconfig.get_path("scripts", f"{os.name}_user"))
    schemes.add(str(Path(sys.executable).parent))
    for scheme in schemes:
        command = Path(scheme, "onepen")
        if command.is_file():
            os.execv(command, [str(command), *sys.argv[1:]])
    sys.exit(f"the command `onepen` is in none of {', '.join(sorted(schemes))}")


if __name__ == "__main__":
    main()
