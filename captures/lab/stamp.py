"""Puts the time of its arrival before every line of standard input."""

import sys
import time

for line in sys.stdin:
    print(f"{time.time():.6f} {line}", end="", flush=True)
