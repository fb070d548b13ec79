"""A page in headless Chromium, steered over a pipe: what tests of the report click and press."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
KEYS = {"Enter": 13, "Escape": 27, "End": 35, "Home": 36, "ArrowRight": 39}
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--mute-audio", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
)


class Page:
    """One page. The DevTools protocol: JSON messages, each ended by a zero byte.

    Args:
        page: A file, or an address.
        width: Of the window, in pixels; less than 600 is a phone.
        height: The same.
        more: Further options of Chromium.
    """

    def __init__(
        self, page: Path | str, width: int = 1200, height: int = 900, more: tuple[str, ...] = ()
    ) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_commands, self.commands = os.pipe()
        self.answers, write_answers = os.pipe()

        def as_3_and_4() -> None:  # the numbers Chromium reads from and writes to
            ends = os.dup(read_commands), os.dup(write_answers)
            for number, end in zip((3, 4), ends, strict=True):
                os.dup2(end, number)

        options = [
            *OPTIONS,
            *more,
            f"--user-data-dir={self.profile.name}",
            "--remote-debugging-pipe",
        ]
        self.process = subprocess.Popen(
            [str(CHROMIUM), *options, f"--window-size={width},{height}", "about:blank"],
            preexec_fn=as_3_and_4,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self.rest, self.number, self.session = b"", 0, ""
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        answer = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = answer["sessionId"]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol !== 'about:'")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; events in between are passed over."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                block = os.read(self.answers, 1 << 16)
                assert block, "Chromium has ended"
                self.rest += block
            text, _, self.rest = self.rest.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self.call(
            *("Runtime.evaluate",), expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: int = 60) -> None:
        """Until an expression of JavaScript is true."""
        script = f"""new Promise((done, fail) => {{
            const end = Date.now() + {1000 * seconds};
            const look = () => {condition} ? done() : Date.now() > end
                ? fail(new Error("never came true")) : setTimeout(look, 50);
            look();
        }})"""
        self.run(script)

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of what `selector` finds first."""
        x, y = self.run(
            f"""(() => {{ const node = document.querySelector({selector!r});
            node.scrollIntoView({{block: "center"}}); const box = node.getBoundingClientRect();
            return [box.left + Math.min(box.width / 2, 20), box.top + box.height / 2]; }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def choose(self, selector: str, *paths: Path) -> None:
        """Chooses files in a field for files."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        files = [str(path) for path in paths]
        self.call("DOM.setFileInputFiles", files=files, objectId=node["result"]["objectId"])

    def press(self, key: str) -> None:
        """A key that is pressed and let go."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **named, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def violations(self) -> list[str]:
        """What axe-core finds inaccessible in the page as it is now: rule, what to do, where."""
        self.run(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
        script = """axe.run().then(found => found.violations.map(one =>
            one.id + ": " + one.help + ": " + one.nodes.map(node => node.html).join(" ")))"""
        found: list[str] = self.run(script)
        return found

    def screenshot(self, path: Path) -> None:
        """The window as PNG."""
        import base64

        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Ends Chromium."""
        self.process.kill()
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)
        self.profile.cleanup()
