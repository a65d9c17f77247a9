"""The site shows what the repository shows, and names all that a user may import."""

import re
import sys
from pathlib import Path

import markdown
import pytest
from markdown_it import MarkdownIt
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import saformer
import saformer.energy

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))
import site_pages  # noqa: E402  # the hook, which mkdocs imports by its path

PAGES = [ROOT / name for name in site_pages.TOP] + sorted(ROOT.glob("docs/**/*.md"))
TAGS = (
    "h1",
    "h2",
    "h3",
    "li",
    "ul",
    "ol",
    "table",
    "td",
    "pre",
    "code",
    "img",
    "a ",
    "p>",
    "strong",
)


@pytest.fixture
def config() -> MkDocsConfig:
    return load_config(str(ROOT / "mkdocs.yml"))


def turned(text: str, config: MkDocsConfig, at: str = "guide.md") -> str:
    """The Markdown of a page of docs/ after the hook."""
    energy, own = (
        File(name, config.docs_dir, config.site_dir, False) for name in ("energy.md", at)
    )
    files = site_pages.on_files(Files([energy]), config)
    return site_pages.on_page_markdown(text, Page(None, own, config), config, files)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_has_the_same_parts_on_the_site(path):
    """Lists, tables, code and links are those that a code host reads, which has other rules."""
    text = path.read_text()
    on_host = MarkdownIt().enable("table").render(text)
    on_site = markdown.markdown(text, extensions=["tables", "pymdownx.superfences"])
    parts = {tag: on_host.count(f"<{tag}") for tag in TAGS}
    assert {tag: on_site.count(f"<{tag}") for tag in TAGS} == parts


def test_links_lead_where_the_target_is_on_the_site(config):
    """A page of the site is linked to as such, an image comes along, and code stays code."""
    assert turned("[a](../README.md#results)", config) == "[a](README.md#results)"
    assert turned("[a](docs/energy.md)", config, at="README.md") == "[a](energy.md)"
    assert turned("[a](../energy.md)", config, at="tables/b.md") == "[a](../energy.md)"
    assert turned("[a](https://arxiv.org)", config) == "[a](https://arxiv.org)"
    assert turned("`[a](../README.md)`", config) == "`[a](../README.md)`"
    image = "benchmarks/results/intel-r-xeon-r-processor-avx512-2-cores/train_step_scaling.png"
    assert turned(f"![a\nb](../{image})", config) == f"![a\nb]({image})"


def test_a_source_file_is_a_link_where_the_repository_has_an_address(config):
    """Without an address the words stand alone."""
    text = "[`train.py`](../train.py)"
    config.repo_url = None
    assert turned(text, config) == "`train.py`"
    config.repo_url = "https://host/us/saformer"
    assert turned(text, config) == "[`train.py`](https://host/us/saformer/blob/HEAD/train.py)"


def test_a_link_that_leads_nowhere_stops_the_build(config):
    """A file that was moved is told with the page that links to it."""
    with pytest.raises(PluginError, match=r"docs/guide\.md.*src/gone\.py"):
        turned("[a](../src/gone.py)", config)


def test_the_reference_has_every_public_name():
    """What `saformer` and `saformer.energy` offer can be imported, and has an entry."""
    entries = "".join(path.read_text() for path in ROOT.glob("docs/api/*.md"))
    found = set(re.findall(r"^::: (\S+)", entries, re.M))
    for module in (saformer, saformer.energy):
        for name in module.__all__:
            assert getattr(module, name) is not None
            assert name == "energy" or f"{module.__name__}.{name}" in found, name
