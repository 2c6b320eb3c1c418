"""Draw a run's network: `make pictures RUN=faces_deep-0`, into pictures/RUN."""

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

from PIL import ImageFont

from facet.prediction.trained_run import find_folder, load_model

PICTURES_FOLDER = Path("pictures")
FILES = ("summary.txt", "graph.png", "layers.png")


def draw_layers(model: Any, path: Path) -> None:
    """The layers as blocks as large as what they give, by visualkeras; branches one by one."""
    import keras
    import visualkeras

    colors = {
        keras.layers.Conv2D: "#4575b4",
        keras.layers.Dense: "#d73027",
        keras.layers.MaxPooling2D: "#91bfdb",
        keras.layers.GlobalAveragePooling2D: "#91bfdb",
        keras.layers.Dropout: "#fee090",
        keras.layers.BatchNormalization: "#c2a5cf",
        keras.layers.InputLayer: "#5aae61",
    }
    for layer in model.layers:  # visualkeras asks for what Keras 3 no longer says
        layer.output_shape = tuple(layer.output.shape)
    with warnings.catch_warnings(action="ignore"):  # of its own defaults
        visualkeras.layered_view(
            model,
            to_file=str(path),
            legend=True,
            type_ignore=[keras.layers.ReLU, keras.layers.Flatten],
            sizing_mode="accurate",
            min_z=14,
            max_z=60,
            min_xy=24,
            max_xy=220,
            spacing=26,
            text_callable=lambda i, layer: (layer.name + "\n", bool(i % 2)),
            color_map={kind: {"fill": color} for kind, color in colors.items()},
            font=ImageFont.load_default(12),
        )


def draw_network(run: str) -> None:
    """Write summary.txt, graph.png (needs Graphviz's `dot`) and layers.png into pictures/RUN."""
    stored = find_folder(run)
    model = load_model(stored)
    import keras

    folder = PICTURES_FOLDER / stored.name
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    model.summary(line_length=110, print_fn=lambda text, **_: lines.append(text))
    (folder / "summary.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw_layers(model, folder / "layers.png")
    if shutil.which("dot"):
        keras.utils.plot_model(
            model, folder / "graph.png", show_shapes=True, show_layer_names=True, dpi=80
        )
    else:
        print(
            "pictures: graph.png left out: it needs Graphviz's dot (apt-get install graphviz)",
            file=sys.stderr,
        )
    print("wrote " + ", ".join(str(p) for p in sorted(folder.iterdir())))
