"""What mkdocs is told beyond ``mkdocs.yml``: pages that are made, files from elsewhere, links between them."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from generated import ELSEWHERE, ROOT, pages

LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")
HIDDEN = re.compile(r"^<!-- (?:hidden|not run:).*?-->\n", re.MULTILINE | re.DOTALL)


def on_config(config: Any) -> Any:
    """List the pages of analyses and of designs."""
    for part in config.nav:
        for title, entries in part.items() if isinstance(part, dict) else ():
            if title == "Analyses":
                entries += [{Path(name).stem: name} for name in pages() if name.startswith("analyses/")][1:]
            if title == "About":
                designs = [name for name in ELSEWHERE.values() if name.startswith("design/")]
                entries += [{f"Design of {Path(name).stem}": name} for name in designs]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    for path, name in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into those between pages; leave out what only tests read."""
    here = page.file.src_uri
    at_home = {name: path for path, name in ELSEWHERE.items()}.get(here, f"docs/{here}")

    def turned(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(at_home), link[1]))
        name = ELSEWHERE.get(path) or path.removeprefix("docs/")
        if name == path and not here.startswith(("analyses/", "reference/")):
            raise PluginError(f"{at_home}: {path} is not on the site")
        return f"]({posixpath.relpath(name, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return HIDDEN.sub("", LINK.sub(turned, markdown))
