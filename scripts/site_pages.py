"""Hook of mkdocs: what a code host shows, README first, is what the site shows.

Links are written for the repository. Those that lead out of docs/ are turned here: to a page of the
site, or below `repo_url`; without one, the link to a source file becomes its words. One to a file
that is not there stops the build.
"""

import re
from os.path import normpath
from pathlib import Path
from posixpath import dirname, join, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
"""Pages beside docs/."""
CODE_OR_LINK = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`)"
    r"|(?P<image>!?)\[(?P<words>(?:`[^`\n]+`|[^\[\]`])*)\]\((?P<target>[^)\s#]*)(?P<rest>[^)]*)\)",
    re.MULTILINE | re.DOTALL,
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside docs/."""
    for name in TOP:
        files.append(_file(name, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page that lead out of docs/."""
    here = page.file.src_uri
    origin = here if here in TOP else f"docs/{here}"

    def turned(match: re.Match[str]) -> str:
        words, target, rest = match["words"], match["target"], match["rest"]
        if match["code"] or not target or ":" in target:
            return match[0]
        path = normpath(join(dirname(origin), target))
        if not (ROOT / path).exists():
            raise PluginError(f"{origin}: a link leads to {path}, which is not there")
        on_site = path.removeprefix("docs/")
        if match["image"] and not files.get_file_from_path(on_site):
            files.append(_file(path, config))
        if files.get_file_from_path(on_site):
            return f"{match['image']}[{words}]({relpath(on_site, dirname(here) or '.')}{rest})"
        if config.repo_url:
            return f"[{words}]({join(config.repo_url, 'blob/HEAD', path)}{rest})"
        return words

    return CODE_OR_LINK.sub(turned, markdown)


def _file(path: str, config: MkDocsConfig) -> File:
    """A file of the repository, at the same path on the site."""
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)
