"""The table that the tests of figures draw."""

import pytest
import yaml
from plot_tables import TABLE

from saformer.results.rows import compose_rows
from saformer.results.settings import TableConfig, read_table
from saformer.results.tables import Row


@pytest.fixture(scope="module")
def composed(tmp_path_factory) -> tuple[TableConfig, list[Row]]:
    """The rows of TABLE, composed once."""
    path = tmp_path_factory.mktemp("table") / "two.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    config = read_table(path)
    return config, compose_rows("two", config, [])
