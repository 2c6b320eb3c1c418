"""Write the page that `dvc plots show` fills, with Vega's scripts in it: it needs no network."""

from pathlib import Path

import vl_convert

PAGE = Path(".dvc/plots/page.html")  # named in .dvc/config; made by `make env`
HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Facet: DVC plots</title>
<script>
// The plots call vegaEmbed while the page is read, the module with it runs afterwards.
window.vegaEmbed = (...what) => addEventListener("vega", () => window.vegaEmbed(...what));
</script>
<script type="module">
SCRIPTS
window.dispatchEvent(new Event("vega"));
</script>
<style>body { font-family: sans-serif; margin: 2em } .vega-embed { width: 100% }</style>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def vega_script() -> str:
    """Vega, Vega-Lite and vegaEmbed, to stand in a page's <script type="module">.

    Taken from PAGE if it is there: bundling takes seconds.
    """
    before, after = HTML.split("SCRIPTS")
    if PAGE.exists():
        page = PAGE.read_text()
        if page.startswith(before) and page.endswith(after):
            return page[len(before) : -len(after)]
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def write_page() -> None:
    """Write the page."""
    PAGE.unlink(missing_ok=True)
    PAGE.write_text(HTML.replace("SCRIPTS", vega_script()))


if __name__ == "__main__":
    write_page()
