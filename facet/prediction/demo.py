"""Try a trained model in the browser, on an own picture or readings: `facet demo RUN`.

The page is served to this machine alone and loads nothing from elsewhere. It works without its
script, which lets a picture be dropped on it.
"""

import asyncio
import base64
import csv
import io
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from facet.base.names import METRICS
from facet.base.prepared import InputInfo
from facet.base.storage import read_json
from facet.datasets.decode import decode_image
from facet.errors import InputError
from facet.formats import ModelInfo
from facet.prediction.predict import load_exact_model, predict_probabilities, prepare_inputs
from facet.prediction.trained_run import find_folder, find_path, read_description

HERE = Path(__file__).parent
HOST = "127.0.0.1"
MAX_BYTES = 64 << 20  # of an upload
SHOWN_PIXELS = 320  # the longer side of the picture as it came
FIRST_CLASSES = 5  # shown at once, the others on demand
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'self'; "
    "script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Answer:
    """What the model says of one item."""

    item: str
    heads: dict[str, list[tuple[str, float]]]
    """By head: its classes with their probabilities, the likeliest first."""
    pictures: dict[str, str]
    """A picture's addresses by caption: as it came, and as the network sees it."""


@dataclass(frozen=True)
class Demo:
    """A model that is tried."""

    run: str
    about: ModelInfo
    model: Any
    verdicts: dict[str, str]
    """By head: how it did on the test part, in words; empty where that is not here."""


def open_demo(run: str) -> Demo:
    """The model of RUN, and how it did. Raises InputError where RUN is no trained run."""
    folder = find_folder(run)
    about = read_description(folder)
    name = f"{about['experiment']}-{about['seed']}"
    metrics = find_path(METRICS.format(name))
    heads = read_json(metrics)["heads"] if metrics.exists() else {}
    verdicts = {
        head: f"{m['verdict']}, balanced accuracy {m['balanced_accuracy']:.3f}, "
        f"chance {m['balanced_chance']:.3f}"
        for head, m in heads.items()
        if m["balanced_accuracy"] is not None
    }
    return Demo(name, about, load_exact_model(folder, about), verdicts)


def picture_address(image: Image.Image) -> str:
    """An image as the address of itself, for a page that may load nothing."""
    content = io.BytesIO()
    image.save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def show_pictures(path: Path, X: np.ndarray) -> dict[str, str]:
    """A picture as it came and as the network sees it, `X` (height, width, channels) in 0-1."""
    came = Image.fromarray(decode_image(path))
    came.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    pixels = np.rint(X * 255).astype("uint8")
    seen = Image.fromarray(pixels[:, :, 0] if X.shape[2] == 1 else pixels)
    color = "grey" if X.shape[2] == 1 else "colour"
    return {
        "As it came": picture_address(came),
        f"As the network sees it: {seen.width} x {seen.height} pixels, {color}": picture_address(
            seen
        ),
    }


def ask_model(demo: Demo, content: bytes, name: str) -> Answer:
    """What the model says of a file's content, `name` to the user.

    Raises InputError where that is no image, or no table of the model's readings.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content)
        try:
            _, X = prepare_inputs(name, path, demo.about["input"])
            pictures = {} if "columns" in demo.about["input"] else show_pictures(path, X[0])
        except InputError as e:
            raise InputError(str(e).replace(str(path), name)) from None
    heads = demo.about["heads"]
    p = {head: rows[0] for head, rows in predict_probabilities(demo.model, X, heads).items()}
    answers = {
        head: [(classes[i], float(p[head][i])) for i in np.argsort(-p[head], kind="stable")]
        for head, classes in heads.items()
    }
    return Answer(name, answers, pictures)


@dataclass(frozen=True)
class Reading:
    """A column of a table as the page asks for it."""

    usual: str
    """What it is filled with: the mean, or the value that is nearest to it."""
    note: str
    """How the training items had it."""
    choices: list[str] = field(default_factory=list)
    """The values there are, of a column of text."""


def describe_readings(how: InputInfo) -> dict[str, Reading]:
    """The columns of a table that a model reads, by name; {} for images."""
    found, place = dict[str, Reading](), 0
    means, spreads = how.get("mean", []), how.get("spread", [])
    for name in how.get("columns", []):
        values = how.get("one_hot", {}).get(name)
        width = len(values) if values else 1
        mean, spread = means[place : place + width], spreads[place]
        place += width
        if values:
            likeliest = max(range(width), key=mean.__getitem__)
            note = f"the commonest, {mean[likeliest]:.0%} of the training items"
            found[name] = Reading(values[likeliest], note, values)
        elif values := how.get("ordinal", {}).get(name):
            middle = values[min(max(round(mean[0]), 0), len(values) - 1)]
            found[name] = Reading(middle, "the middle one of the training items", values)
        else:
            note = f"mean {mean[0]:.4g}, spread {spread:.3g}"
            found[name] = Reading(f"{float(f'{mean[0]:.4g}'):g}", note)
    return found


def write_row(readings: dict[str, str]) -> bytes:
    """A CSV table of one row."""
    text = io.StringIO()
    csv.writer(text).writerows([list(readings), list(readings.values())])
    return text.getvalue().encode()


async def read_form(request: web.Request, demo: Demo) -> tuple[Answer, dict[str, str]]:
    """The answer to what the page sent, and the readings that it sent. Raises InputError."""
    try:
        form = await request.post()
    except web.HTTPRequestEntityTooLarge:
        raise InputError(f"the picture is larger than {MAX_BYTES >> 20} MiB") from None
    if columns := describe_readings(demo.about["input"]):
        readings = {name: str(form.get(name, "")).strip() for name in columns}
        return ask_model(demo, write_row(readings), "the readings"), readings
    upload = form.get("picture")
    if not isinstance(upload, web.FileField) or not upload.filename:
        raise InputError("no picture was chosen; choose one, or drop it on the page")
    return ask_model(demo, upload.file.read(), Path(upload.filename).name), {}


def make_application(demo: Demo) -> web.Application:
    """The page as a web application: GET / is the form, POST / answers it."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("demo.html.j2")
    columns = describe_readings(demo.about["input"])
    usual = {name: column.usual for name, column in columns.items()}

    def respond(
        readings: dict[str, str], answer: Answer | None = None, error: str = ""
    ) -> web.Response:
        text = template.render(
            demo=demo,
            readings=readings,
            columns=columns,
            answer=answer,
            error=error,
            first=FIRST_CLASSES,
        )
        status = 400 if error else 200
        return web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)

    async def show_form(_: web.Request) -> web.Response:
        return respond(usual)

    async def show_answer(request: web.Request) -> web.Response:
        try:
            answer, readings = await read_form(request, demo)
        except InputError as e:
            return respond(usual, error=" ".join(str(e).split()))
        return respond(readings, answer)

    async def show_style(_: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "demo.css", headers=HEADERS)

    async def show_script(_: web.Request) -> web.FileResponse:
        return web.FileResponse(HERE / "demo.js", headers=HEADERS)

    @web.middleware
    async def refuse_other_names(request: web.Request, handler: Any) -> web.StreamResponse:
        """A page elsewhere may give this machine a name of its own, to read what it answers."""
        if request.url.host not in (HOST, "localhost"):
            raise web.HTTPForbidden(text=f"this page is for {HOST} alone")
        response: web.StreamResponse = await handler(request)
        return response

    application = web.Application(client_max_size=MAX_BYTES, middlewares=[refuse_other_names])
    application.add_routes(
        [
            web.get("/", show_form),
            web.post("/", show_answer),
            web.get("/demo.css", show_style),
            web.get("/demo.js", show_script),
        ]
    )
    return application


async def serve_page(demo: Demo, port: int) -> None:
    """Serve the page until cancelled. Raises InputError where the port is taken."""
    runner = web.AppRunner(make_application(demo), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        print(
            f"http://{HOST}:{runner.addresses[0][1]}/ tries {demo.run}; Ctrl-C ends it", flush=True
        )
        await asyncio.Event().wait()
    except OSError as e:
        raise InputError(f"port {port}: {e.strerror}; choose another, --port 0 any") from None
    finally:
        await runner.cleanup()


def serve_demo(run: str, port: int) -> None:
    """Serve a page on which RUN's model can be tried, on this machine alone, until Ctrl-C.

    `port` 0 is any that is free; the page's address is printed. Raises InputError where RUN is no
    trained run, or the port is taken.
    """
    demo = open_demo(run)
    # A shell has those that it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(serve_page(demo, port))
