"""A real browser without a window, driven over two pipes in the DevTools protocol: no package and no port is needed."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "google-chrome", "google-chrome-stable")
PROGRAM = next((path for path in map(shutil.which, NAMES) if path), None)
# Software for WebGL: machines that run tests have no graphics. No sandbox, because root has none.
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--allow-file-access-from-files",
)


class PageError(AssertionError):
    """A script that the page was asked to run has thrown."""


class Browser:
    """One browser with one tab.

    Attributes:
        events: all that the tab has reported since `open`, as (method, parameters).
    """

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive, self._rest, self._count, self._session = send, receive, b"", 0, None
        self.events: list[tuple[str, dict[str, Any]]] = []

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._receive, 1 << 16)
            if not piece:
                raise ConnectionError("the browser has ended")
            self._rest += piece
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, message: dict[str, Any]) -> None:
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self._count += 1
        request = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            request["sessionId"] = self._session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self._send, data) :]
        while True:
            message = self._message()
            if message.get("id") == self._count:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def wait(self, method: str, fits: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """The first event of that kind since `open`; waits until there is one."""
        seen = 0
        while True:
            for name, parameters in self.events[seen:]:
                if name == method and fits(parameters):
                    return parameters
            seen = len(self.events)
            self._note(self._message())

    def attach(self) -> None:
        """Begin a tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file as if by double click, and wait until it has loaded."""
        self.size(width, height)
        # Without motion there is no moment at which a colour is on its way to another.
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.events.clear()
        loader = self.call("Page.navigate", url=path.as_uri())["loaderId"]
        self.wait("Page.lifecycleEvent", lambda event: event["loaderId"] == loader and event["name"] == "load")

    def size(self, width: int, height: int) -> None:
        """Set the window's size; narrow ones are phones that are touched."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited."""
        options = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self.call("Runtime.evaluate", expression=script, **options)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression of the page is true; fails when it has not become so for long."""
        self.run(
            f"""(async () => {{
                for (let i = 0; i < 1500; i++) {{
                    if (await ({condition})) return;
                    await new Promise((done) => setTimeout(done, 20));
                }}
                throw new Error("still not: " + {json.dumps(condition)});
            }})()"""
        )

    def press(self, key: str, *, code: int = 0, text: str = "") -> None:
        """Press and release a key as a person does, on what has the focus."""
        options = {"key": key, "windowsVirtualKeyCode": code or ord(key[0].upper())}
        self.call("Input.dispatchKeyEvent", type="keyDown", **options, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def drag(self, start: tuple[float, float], *moves: tuple[float, float]) -> None:
        """Press the mouse at a place, move it, and release; without moves a click."""
        options = {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=start[0], y=start[1])
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], **options)
        for x, y in moves:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, buttons=1, **options)
        x, y = moves[-1] if moves else start
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **options)

    def click(self, selector: str) -> None:
        """Scroll to an element and click on its middle; fails where something else lies over it."""
        found = self.run(
            f"""(() => {{
                const element = document.querySelector({json.dumps(selector)});
                if (!element) throw new Error("nothing fits " + {json.dumps(selector)});
                element.scrollIntoView({{block: "center", behavior: "instant"}});
                const box = element.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                const top = document.elementFromPoint(x, y);
                if (!element.contains(top)) throw new Error({json.dumps(selector)} + " lies under " + top?.outerHTML);
                return [x, y];
            }})()"""
        )
        self.drag((found[0], found[1]))

    def picture(self, *, whole: bool = False) -> bytes:
        """The page as a PNG file: what is seen, or all of it."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def complaints(self) -> list[str]:
        """Errors, warnings of scripts, and every request that left the page's own file."""
        found = []
        for method, data in self.events:
            if method == "Runtime.exceptionThrown":
                found.append(str(data["exceptionDetails"].get("exception", {}).get("description", data)))
            elif method == "Runtime.consoleAPICalled" and data["type"] in ("error", "warning", "assert"):
                found.append(f"console.{data['type']}: {[part.get('value') for part in data['args']]}")
            elif method == "Log.entryAdded" and data["entry"]["level"] == "error":
                found.append(f"log: {data['entry']['text']} {data['entry'].get('url', '')[:200]}")
            elif method == "Network.requestWillBeSent":
                address = data["request"]["url"]
                if not address.startswith(("file:", "data:", "blob:", "about:")):
                    found.append(f"request: {address[:200]}")
        return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A running browser; it ends with the block, and what it wrote goes with it."""
    assert PROGRAM is not None, "expected a browser"
    to_browser, send = os.pipe()
    receive, from_browser = os.pipe()
    # It reads descriptor 3 and writes 4, which only a shell can give it without running Python between fork and exec.
    line = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        arguments = ["bash", "-c", line, PROGRAM, *_OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        process = subprocess.Popen(
            [*arguments, "about:blank"], pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            found = Browser(send, receive)
            found.attach()
            yield found
        finally:
            os.close(send)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(receive)
