"""What every page of the project shares: skeleton, style, script and content security policy.

A page loads nothing from elsewhere and says so in its policy: its style and script are inline and
named by hash, its pictures are data URIs.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

from .. import __version__
from ..errors import MissingDependencyError

HOME = __name__.rpartition(".")[0]  # the package of base.html, page.css and page.js


def render(template: str, *, package: str = HOME, style: str = "", **given: Any) -> str:
    """Fill a template that extends ``base.html``.

    Args:
        template: a file of ``package``; from this one it may import ``gallery.html``.
        package: where the template is.
        style: CSS of its own, after the shared one.
        given: what the template names.

    Raises:
        MissingDependencyError: the extra ``report`` is not installed.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            "a report needs jinja2 and matplotlib: pip install 'lpips-sat[report]'"
        ) from error
    homes = dict.fromkeys((package, HOME))
    env = Environment(
        loader=ChoiceLoader([PackageLoader(home, ".") for home in homes]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _read("page.css") + style, _read("page.js")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    shared = {"style": style, "script": script, "policy": policy, "version": __version__}
    return env.get_template(template).render(**shared, **given)


def palette(*, dark: bool) -> dict[str, str]:
    """The colours of ``page.css`` by name (ground, ink, soft, line, m0 to m5), as #rrggbb."""
    found = re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", _read("page.css"))
    return {name: _long(night if dark else day) for name, day, night in found}


def _long(colour: str) -> str:
    return colour if len(colour) > 4 else "#" + "".join(2 * digit for digit in colour[1:])


def _read(name: str) -> str:
    return (files(HOME) / name).read_text("utf-8")


def _hash(text: str) -> str:
    """What the content security policy calls an inline element by."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
