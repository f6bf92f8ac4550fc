"""What torch says of a download leaves standard output alone."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout

from torch import nn

from divacli.backbones.made_to_fit import downloaded


def test_standard_output_stays_a_table(capsys):
    def build() -> nn.Module:
        sys.stdout.write("Downloading: ...\n")
        return nn.Identity()

    with redirect_stdout(io.StringIO()) as table:
        downloaded(build, "resnet50", "https://download.pytorch.org")
    assert table.getvalue() == ""
    assert "Downloading" in capsys.readouterr().err
