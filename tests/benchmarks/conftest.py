"""What tests of the measurements stand on."""

import sys
from pathlib import Path

# The measurements are no part of the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
