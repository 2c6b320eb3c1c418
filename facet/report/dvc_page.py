"""The page that `dvc plots show` fills, with Vega's scripts in it: it needs no network.

It is in git, so that DVC finds it in every clone and worktree. `python -m facet.report.dvc_page`
writes it anew after an update of vl-convert; a test holds that it is what this gives.
"""

from pathlib import Path

PAGE = Path(__file__).parents[2] / ".dvc/plots/page.html"  # named in .dvc/config
NOTICE = Path(__file__).with_name("vega_notice.txt")  # the licences of what is bundled
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
    """Vega, Vega-Lite and vegaEmbed, to stand in a page's <script type="module">."""
    before, after = HTML.split("SCRIPTS")
    return PAGE.read_text(encoding="utf-8").removeprefix(before).removesuffix(after)


def make_page() -> str:
    """The page, with the scripts that the installed vl-convert has."""
    import vl_convert  # for who updates the page alone

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    bundle = bundle.replace("</script", "<\\/script")
    return HTML.replace("SCRIPTS", f"/*\n{NOTICE.read_text(encoding='utf-8')}*/\n{bundle}")


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
