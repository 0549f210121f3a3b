"""Run the cells of a notebook and write what they show into it, without Jupyter.

python docs/notebook.py examples/score_folder.ipynb

Outputs are what is printed and, of a cell's last line, its HTML, picture or text; a test runs the same.
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run(cells: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell; what it raises is raised here."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [_outputs(number, "".join(cell["source"]), names) for number, cell in enumerate(_code(cells), start=1)]


def _code(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _outputs(number: int, source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(True)})
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = _lines(value._repr_html_())
        elif hasattr(value, "_repr_png_"):
            data = {"text/plain": ["a picture"], "image/png": base64.b64encode(value._repr_png_()).decode()}
        found.append({"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data})
    return found


def _lines(text: str) -> list[str]:
    return text.splitlines(True)


def main(path: Path) -> None:
    """Write the outputs into a notebook."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for number, (cell, outputs) in enumerate(
        zip(_code(notebook["cells"]), run(notebook["cells"]), strict=True), start=1
    ):
        cell["execution_count"], cell["outputs"] = number, outputs
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
