"""What a run prints while it trains."""

import re
import sys
import time

from lightning.pytorch.callbacks import Callback, RichProgressBar

from saformer.training.callbacks.progress import EpochLine, progress_bar


def test_one_line_for_each_epoch_and_nothing_else(tmp_path, fit, capsys):
    """Away from a terminal stdout has exactly one line an epoch, in the documented form."""
    bar = progress_bar()
    assert isinstance(bar, EpochLine)
    fit(tmp_path, bar, epochs=3)
    printed = capsys.readouterr().out.splitlines()
    form = (
        r"epoch {}/3  loss \d\.\d{{3}}  val loss \d\.\d{{3}}  val acc \d+\.\d\d %  "
        r"\d+ img/s  lr \d\.\de-\d\d"
    )
    assert len(printed) == 3
    for number, line in enumerate(printed, 1):
        assert re.fullmatch(form.format(number), line)
    assert printed[1].endswith("lr 5.0e-02")


def test_a_disabled_line_is_silent(tmp_path, fit, capsys):
    """Lightning can switch the line off, as it does on all ranks but the first."""
    line = EpochLine()
    line.disable()
    fit(tmp_path, line, epochs=1)
    assert capsys.readouterr().out == ""


def test_speed_leaves_validation_out(tmp_path, fit, capsys):
    """A slow validation does not lower the samples per second of the training."""

    class SlowValidation(Callback):
        def on_validation_batch_end(self, *args, **kwargs):
            time.sleep(0.5)

    line = EpochLine()
    fit(tmp_path, line, SlowValidation(), epochs=1, test=False, num_sanity_val_steps=0)
    assert line.samples == 32
    assert line.seconds < 1  # four batches of validation took two seconds


def test_a_terminal_gets_a_bar(monkeypatch):
    """Somebody who watches sees Lightning's bar."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(progress_bar(), RichProgressBar)
