"""The report of a count, also of networks that are silent or do not keep to spikes."""

import json
import warnings

import pytest
import torch
from torch import nn

from saformer.energy import Counter, LayerTable, count
from saformer.energy.report import markdown, terminal, write
from saformer.energy.settings import EnergyConfig
from saformer.energy.table import Kind
from saformer.errors import SettingError


def firing(model: nn.Module, size: int) -> nn.Module:
    """The network with BatchNorm statistics under which its neurons fire."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            layer.reset_running_stats()
    with torch.no_grad():
        model.train()(torch.rand(16, 1, size, size))
    return model.eval()


def strict_json(text: str) -> dict:
    """Parse JSON, which has no NaN."""

    def refuse(word: str) -> None:
        raise ValueError(word)

    found: dict = json.loads(text, parse_constant=refuse)
    return found


def test_a_silent_network_has_a_report(tmp_path, backbone):
    """Where nothing fires there are files, no warnings, no NaN in JSON, and no rate at which it
    would pay."""
    table = count(backbone(), torch.zeros(2, 1, 8, 8))
    assert sum(layer.nonzero for layer in table.of(Kind.neuron)) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(table, EnergyConfig(), tmp_path, {})
    record = strict_json((tmp_path / "energy.json").read_text())
    assert {cost["crossover_rate"] for cost in record["costs"]} == {None}
    rows = (tmp_path / "report.md").read_text().partition("## Hardware models")[2].splitlines()
    assert [row.split("|")[-2].strip() for row in rows if row.startswith("| h")][1:] == ["-"] * 4


def test_one_sample_has_no_standard_error(tmp_path, backbone):
    """A single image is reported, and has no standard error."""
    folder = tmp_path / "made" / "for it"
    write(count(firing(backbone(), 8), torch.rand(1, 1, 8, 8)), EnergyConfig(), folder, {})
    record = strict_json((folder / "energy.json").read_text())
    assert "energy/total_mJ_se" not in record["scalars"]
    assert record["scalars"]["energy/total_mJ"] > 0


@pytest.mark.parametrize("residual", ["membrane", "sew"])
def test_layers_that_do_not_see_spikes_are_named(residual, backbone):
    """With the membrane residual none; with SEW those that read the sum of spikes."""
    network = firing(backbone(f"model.residual={residual}", "attention.apply_to=k"), 8)
    table = count(network, torch.rand(8, 1, 8, 8))
    named = [name for name in table.not_spikes if "attn.q" in name or "mlp.layers.0" in name]
    said = [line for line in terminal(table, EnergyConfig()) if isinstance(line, str)]
    page = markdown(table, EnergyConfig(), {})
    if residual == "membrane":
        assert (table.not_spikes, said) == ([], [])
        assert "is not spikes" not in page
    else:
        assert named
        assert all(name in said[0] and f"`{name}`" in page for name in table.not_spikes)


def test_the_report_says_of_what_it_is(backbone):
    """Dataset and split stand in the page where they are known."""
    counter = Counter(firing(backbone(), 8))
    with torch.no_grad(), counter.counting(2):
        counter.model(torch.rand(2, 1, 8, 8))
    table: LayerTable = counter.table()
    page = markdown(table, EnergyConfig(), {"dataset": "digits", "split": "test"})
    assert "2 images of digits test, T = 4, convention `exact`." in page


def test_a_report_needs_a_hardware_model():
    """An empty list is answered with what to do."""
    with pytest.raises(SettingError, match=r"^energy\.costs must name at least one hardware model"):
        EnergyConfig(costs=[])
