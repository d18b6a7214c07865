"""`python -m tests.db.start_embedded FOLDER`: join the embedded server of a folder until the standard input ends."""

import sys
from pathlib import Path

from agent_server.db.embedded import start_embedded

if __name__ == "__main__":
    sys.stdout.write(f"{start_embedded(Path(sys.argv[1]))}\n")
    sys.stdout.flush()
    sys.stdin.read()
